"""Erasures on an embedded chain in this process: attested, opening a generation, certified, each once."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from chain.ledger import EthereumLedger
from core.canonical import ZERO_DIGEST, Digest
from core.errors import LedgerConflictError
from core.keys import derive
from core.ledger import Erasure, GenerationOpening, LaneHead
from tests.behaviours.ledger import MEMBERS, a_round, some_digest
from tests.chain.chains import bound, open_node

pytestmark = pytest.mark.chain


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EthereumLedger]:
    folder = tmp_path_factory.mktemp("erasures")
    with open_node(folder / "chain") as node:
        yield EthereumLedger(bound(node, folder, derive(1, "coordinator")))


@pytest.fixture
def run(ledger: EthereumLedger) -> Digest:
    """A run with two rounds in lane 0."""
    run = some_digest()
    ledger.open_run(run, MEMBERS)
    first = a_round(run)
    ledger.commit(first)
    ledger.commit(a_round(run, 2, first.aggregate))
    return run


def test_an_erasure_is_written_down_in_three_steps(ledger: EthereumLedger, run: Digest) -> None:
    erasure, attestation, certificate = some_digest(), some_digest(), some_digest()
    assert ledger.erasure(run, erasure) is None
    block = ledger.attest(run, erasure, 0, attestation).block
    assert ledger.erasure(run, erasure) == Erasure(0, attestation, ZERO_DIGEST, 0, block)
    ledger.open_generation(GenerationOpening(run, 0, 1, erasure, 0, 1))
    assert ledger.erasure(run, erasure) == Erasure(0, attestation, ZERO_DIGEST, 1, block)
    ledger.certify(run, erasure, certificate)
    assert ledger.erasure(run, erasure) == Erasure(0, attestation, certificate, 1, block)


def test_opening_a_generation_moves_the_head_back(ledger: EthereumLedger, run: Digest) -> None:
    erasure, before = some_digest(), ledger.head(run, 0)
    assert (before.generation, before.round) == (0, 2)
    ledger.attest(run, erasure, 0, some_digest())
    ledger.open_generation(GenerationOpening(run, 0, 1, erasure, 0, 0))
    assert ledger.head(run, 0) == LaneHead(1, 0, ZERO_DIGEST)
    assert ledger.head(run, 1) == LaneHead(0, 0, ZERO_DIGEST)


def test_every_step_may_be_repeated_and_says_where_it_stands(ledger: EthereumLedger, run: Digest) -> None:
    erasure, attestation, certificate = some_digest(), some_digest(), some_digest()
    opening = GenerationOpening(run, 0, 1, erasure, 0, 1)
    steps = [
        lambda: ledger.attest(run, erasure, 0, attestation),
        lambda: ledger.open_generation(opening),
        lambda: ledger.certify(run, erasure, certificate),
    ]
    anchors = [step() for step in steps]
    assert [step() for step in steps] == anchors
    assert [anchor.block for anchor in anchors] == sorted({anchor.block for anchor in anchors})


def test_no_step_can_be_made_again_with_other_values(ledger: EthereumLedger, run: Digest) -> None:
    erasure = some_digest()
    opening = GenerationOpening(run, 0, 1, erasure, 0, 1)
    ledger.attest(run, erasure, 0, some_digest())
    for lane, attestation in ((1, some_digest()), (0, some_digest())):
        with pytest.raises(LedgerConflictError, match=erasure):
            ledger.attest(run, erasure, lane, attestation)
    ledger.open_generation(opening)
    for other in (replace(opening, parent_round=0), replace(opening, lane=1), replace(opening, generation=2)):
        with pytest.raises(LedgerConflictError, match=erasure):
            ledger.open_generation(other)
    ledger.certify(run, erasure, some_digest())
    with pytest.raises(LedgerConflictError, match=erasure):
        ledger.certify(run, erasure, some_digest())


def test_no_step_can_be_left_out(ledger: EthereumLedger, run: Digest) -> None:
    erasure = some_digest()
    for refused in (
        lambda: ledger.open_generation(GenerationOpening(run, 0, 1, erasure, 0, 1)),
        lambda: ledger.certify(run, erasure, some_digest()),
    ):
        with pytest.raises(LedgerConflictError, match="ErasureUnknown"):
            refused()
    ledger.attest(run, erasure, 0, some_digest())
    with pytest.raises(LedgerConflictError, match=r"GenerationNotCurrent\(got=2, expected=1\)"):
        ledger.open_generation(GenerationOpening(run, 0, 2, erasure, 0, 1))
    with pytest.raises(LedgerConflictError, match="RoundUnknown"):
        ledger.open_generation(GenerationOpening(run, 0, 1, erasure, 0, 3))
