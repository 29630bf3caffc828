"""What is served of lanes that learned apart: parts, shares, digest."""

import hashlib
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from core.adapter import AdapterState
from core.aggregation import RULES
from core.canonical import Address
from core.composition import COMPOSITIONS, Composition, Part, compose, shares
from core.errors import ConfigError, FormatError
from tests import federation as f

MEDICAL, FINANCIAL, CODING = (f.address(name) for name in ("medical", "financial", "coding"))
STATES = {who: AdapterState({"m.lora_B": np.full((2, 1), value, np.float32)})
          for who, value in ((MEDICAL, 4.0), (FINANCIAL, 8.0), (CODING, 16.0))}  # fmt: skip
LANES = ((MEDICAL,), (FINANCIAL,), (CODING,))


def genesis(kind: str, **changes: Any) -> Any:
    return f.genesis(("medical", "financial", "coding"), lanes=LANES, composition=kind, **changes)


def served(kind: str, *gone: Address, **changes: Any) -> Composition:
    return compose(genesis(kind, **changes), [(() if lane[0] in gone else lane, STATES[lane[0]]) for lane in LANES])


def test_shares_are_the_members_examples_among_those_who_learn() -> None:
    assert shares(genesis("sum"), LANES) == (100 / 800, 300 / 800, 400 / 800)
    assert shares(genesis("sum"), LANES[:2]) == (0.25, 0.75)


def test_a_sum_is_one_state_that_is_named_by_its_terms() -> None:
    got = served("sum")
    lanes = list(zip(shares(genesis("sum"), LANES), STATES.values(), strict=True))
    assert got.states == (RULES["frozen-a"].compose(lanes),)
    terms = [{"share": share, "state": state.digest} for share, state in lanes]
    data = json.dumps({"kind": "sum", "parts": terms}, sort_keys=True, separators=(",", ":")).encode()
    assert got.digest == "0x" + hashlib.sha256(b"foedus/composition/v1\0" + data).hexdigest()


@pytest.mark.parametrize("kind", ["ensemble", "routing"])
def test_lanes_that_are_not_summed_are_parts_in_their_order(kind: str) -> None:
    got = served(kind)
    assert got.parts == tuple(zip((0.125, 0.375, 0.5), STATES.values(), strict=True))
    plain = {"kind": kind, "parts": [{"share": p.share, "state": p.state.digest} for p in got.parts]}
    data = json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()
    assert got.digest == "0x" + hashlib.sha256(b"foedus/composition/v1\0" + data).hexdigest()


@pytest.mark.parametrize("kind", COMPOSITIONS)
def test_a_lane_without_members_was_never_there(kind: str) -> None:
    never = f.genesis(("medical", "financial"), lanes=LANES[:2], composition=kind)
    without = compose(never, [(lane, STATES[lane[0]]) for lane in LANES[:2]])
    assert served(kind, CODING) == without
    assert served(kind, CODING).digest == without.digest != served(kind).digest


@pytest.mark.parametrize("kind", COMPOSITIONS)
def test_of_one_lane_all_compositions_are_its_state(kind: str) -> None:
    assert served(kind, CODING, FINANCIAL) == Composition.of(STATES[MEDICAL])
    assert served(kind, CODING, FINANCIAL).digest == STATES[MEDICAL].digest


def test_kind_shares_states_and_order_are_in_the_digest() -> None:
    got = served("ensemble")
    first, second, third = got.parts
    others = [
        replace(got, kind="routing"),
        replace(got, parts=(second, first, third)),
        replace(got, parts=(first, second)),
        replace(got, parts=(first._replace(share=0.2), second, third)),
        replace(got, parts=(first._replace(state=second.state), second, third)),
    ]
    assert len({got.digest, *(other.digest for other in others)}) == len(others) + 1


def test_only_a_sum_needs_a_rule_that_adds_up() -> None:
    with pytest.raises(ConfigError, match="needs aggregation frozen-a, got fedavg"):
        served("sum", rule="fedavg")
    assert served("ensemble", rule="fedavg").states == tuple(STATES.values())


@pytest.mark.parametrize(
    ("kind", "count"), [("median", 2), ("sum", 2), ("sum", 0), ("ensemble", 0)]
)  # fmt: skip
def test_what_is_no_composition_is_refused(kind: str, count: int) -> None:
    with pytest.raises(FormatError, match=f"got '{kind}' of {count} parts"):
        Composition(kind, (Part(0.5, STATES[MEDICAL]),) * count)
