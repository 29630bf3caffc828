"""Whatever bytes come from elsewhere, a reader raises an error of this project, soon and in little memory.

A second for each reader here; ``make fuzz SECONDS=3600`` goes on for an hour.
"""

import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain.devnet.accounts import CHAIN_IDS
from chain.devnet.evm import EmbeddedChain
from chain.devnet.rpc import JsonRpc
from core.canonical import parse_json
from core.errors import FoedusError, FormatError
from tests.fuzzing.mutations import mutated
from tests.fuzzing.readers import Reader, readers

SECONDS = float(os.environ.get("FUZZ_SECONDS", "20"))
"""For all readers together."""
SEED = int(os.environ.get("FUZZ_SEED", "7"))
MOST_SECONDS = 1.0
"""Of CPU for one input, none of which has more than 2 MB."""
MOST_MIB = 200
"""That the process may grow by while a reader is tried."""


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Reader]]:
    folder = tmp_path_factory.mktemp("fuzzing")
    chain = EmbeddedChain(folder / "chain.sqlite", CHAIN_IDS["public"], {})
    yield readers(folder, JsonRpc(chain))
    chain.close()


def test_good_bytes_are_read(cases: dict[str, Reader]) -> None:
    refused: dict[str, Any] = {}
    for name, case in cases.items():
        try:
            case.read(case.good)
        except FoedusError as error:
            refused[name] = error
    # A generation is begun from a record's bytes, and a refusal is an answer.
    assert set(refused) == {"generation", "refusal"}, refused


def test_mutated_bytes_raise_our_own_errors_soon_and_in_little_memory(cases: dict[str, Reader]) -> None:
    random, inputs = Random(SEED), 0  # noqa: S311 - to be repeated
    for name, case in cases.items():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        deadline = time.monotonic() + SECONDS / len(cases)
        while time.monotonic() < deadline:
            data = mutated(case.good, random)[: 2 * 2**20]
            check(name, case, data)
            inputs += 1
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10
        assert grown < MOST_MIB, f"{name}: grew by {grown:.0f} MiB"
    print(f"{inputs} inputs to {len(cases)} readers in {SECONDS:.0f} s, seed {SEED}")  # noqa: T201 - with -s


def check(name: str, case: Reader, data: bytes) -> None:
    """Read once; an error of another kind is reported with the bytes that made it."""
    began = time.process_time()
    try:
        case.read(data)
    except FoedusError:
        pass
    except Exception as error:
        place = Path(os.environ.get("FUZZ_FOUND", "/dev/null"))
        place.write_bytes(data)
        raise AssertionError(f"{name}: {type(error).__name__}: {error} on {data[:2000]!r}") from error
    spent = time.process_time() - began
    assert spent < MOST_SECONDS, f"{name}: {spent:.1f} s on {len(data)} bytes"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_at_all_raise_our_own_errors(cases: dict[str, Reader], data: bytes) -> None:
    for name, case in cases.items():
        check(name, case, data)


def test_the_recursion_limit_is_never_near() -> None:
    assert sys.getrecursionlimit() <= 20_000
    with pytest.raises(FormatError):
        parse_json(b"[" * 10**6)
