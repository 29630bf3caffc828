"""Erasures and generations in the contract's own terms; tests/behaviours/ledger.py has what every ledger promises."""

from dataclasses import replace

import pytest

from chain.contract import BoundContract
from chain.erasures import Erasures
from chain.ledger import EthereumLedger
from core.canonical import ZERO_DIGEST, Digest
from core.errors import LedgerConflictError, LedgerError
from core.ledger import GenerationOpening, LaneHead
from tests.behaviours.ledger import MEMBERS, a_round, some_digest

pytestmark = pytest.mark.chain


@pytest.fixture
def erasures(public: BoundContract) -> Erasures:
    return Erasures(public)


@pytest.fixture
def run(public: BoundContract) -> Digest:
    run = some_digest()
    EthereumLedger(public).open_run(run, MEMBERS)
    return run


def test_each_step_is_read_back_as_it_comes(public: BoundContract, erasures: Erasures, run: Digest) -> None:
    erasure, attestation, certificate = (some_digest() for _ in range(3))
    assert erasures.read(run, erasure) is None
    anchor = erasures.attest(run, erasure, 0, attestation)
    first = erasures.read(run, erasure)
    assert first is not None
    assert (first.attestation, first.certificate, first.generation) == (attestation, ZERO_DIGEST, 0)
    assert first.attested_at == anchor.block
    assert erasures.head(run, 0) == LaneHead(0, 0, ZERO_DIGEST)
    erasures.open_generation(GenerationOpening(run, 0, 1, erasure, 0, 0))
    assert erasures.head(run, 0) == LaneHead(1, 0, ZERO_DIGEST)
    erasures.certify(run, erasure, certificate)
    assert erasures.read(run, erasure) == replace(first, generation=1, certificate=certificate)
    assert public.exists


def test_a_step_with_other_values_is_refused_with_both(erasures: Erasures, run: Digest) -> None:
    erasure, first, other = (some_digest() for _ in range(3))
    erasures.attest(run, erasure, 0, first)
    with pytest.raises(LedgerConflictError, match=f"{erasure} is already attested: expected .*{first}.*, got {other}"):
        erasures.attest(run, erasure, 0, other)
    with pytest.raises(LedgerConflictError, match=f"{erasure} is already attested: .* for lane 1"):
        erasures.attest(run, erasure, 1, first)
    opening = GenerationOpening(run, 0, 1, erasure, 0, 0)
    erasures.open_generation(opening)
    with pytest.raises(LedgerConflictError, match=f"{erasure} is already opened: .*'parentRound': 0.*parent_round=3"):
        erasures.open_generation(replace(opening, parent_round=3))
    erasures.certify(run, erasure, first)
    with pytest.raises(LedgerConflictError, match=f"{erasure} is already certified: expected {first}, got {other}"):
        erasures.certify(run, erasure, other)


def test_the_contract_refuses_steps_out_of_order(public: BoundContract, erasures: Erasures, run: Digest) -> None:
    erasure = some_digest()
    with pytest.raises(LedgerConflictError, match="ErasureUnknown"):
        erasures.open_generation(GenerationOpening(run, 0, 1, erasure, 0, 0))
    erasures.attest(run, erasure, 0, some_digest())
    with pytest.raises(LedgerConflictError, match=r"GenerationNotCurrent\(got=2, expected=1\)"):
        erasures.open_generation(GenerationOpening(run, 0, 2, erasure, 0, 0))
    EthereumLedger(public).commit(a_round(run))
    with pytest.raises(LedgerConflictError, match=r"RoundUnknown\(lane=0, generation=0, round=2\)"):
        erasures.open_generation(GenerationOpening(run, 0, 1, erasure, 0, 2))


def test_an_erasure_without_its_event_is_refused(
    erasures: Erasures, run: Digest, monkeypatch: pytest.MonkeyPatch
) -> None:
    erasure, attestation = some_digest(), some_digest()
    erasures.attest(run, erasure, 0, attestation)
    monkeypatch.setattr(erasures._bound, "events", lambda *_, **__: [])
    with pytest.raises(LedgerError, match=f"{erasure}: expected 1 event ErasureAttested, got 0"):
        erasures.attest(run, erasure, 0, attestation)
