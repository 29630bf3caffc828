"""What every ledger promises, whatever holds it. A test module subclasses `LedgerClaims` and gives it a ledger."""

import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from core.canonical import ZERO_DIGEST, Digest, digest
from core.errors import LedgerConflictError
from core.keys import Domain, derive
from core.ledger import Anchor, GenerationOpening, LaneHead, Ledger, RoundCommitment
from core.round_key import RoundKey

MEMBERS = frozenset(derive(1, f"organisation {index}").address for index in range(4))


def some_digest() -> Digest:
    return digest("test", secrets.token_bytes(16))


def a_round(run: Digest, number: int = 1, parent: Digest = ZERO_DIGEST, lane: int = 0) -> RoundCommitment:
    return RoundCommitment(RoundKey(run, lane, 0, number), parent, some_digest(), some_digest(), 4)


class LedgerClaims:
    """One instance of the ledger may serve all claims: each opens a run of its own."""

    @pytest.fixture
    def ledger(self) -> Ledger:
        raise NotImplementedError

    @pytest.fixture
    def run(self, ledger: Ledger) -> Digest:
        run = some_digest()
        ledger.open_run(run, MEMBERS)
        return run

    def test_members_are_those_the_run_was_opened_with(self, ledger: Ledger, run: Digest) -> None:
        assert ledger.members(run) == MEMBERS

    def test_an_unknown_run_has_no_members(self, ledger: Ledger) -> None:
        assert ledger.members(some_digest()) == frozenset()

    def test_opening_a_run_again_in_another_order_changes_nothing(self, ledger: Ledger, run: Digest) -> None:
        ledger.open_run(run, sorted(MEMBERS, reverse=True))
        assert ledger.members(run) == MEMBERS

    def test_a_run_cannot_change_its_members(self, ledger: Ledger, run: Digest) -> None:
        with pytest.raises(LedgerConflictError, match="other members"):
            ledger.open_run(run, list(MEMBERS)[:2])

    def test_a_run_is_handed_over_and_keeps_its_members(self, ledger: Ledger, run: Digest) -> None:
        opener = ledger.coordinator(run)
        successor = derive(1, f"successor of {run}").address
        for _ in range(2):
            ledger.change_coordinator(run, successor)
        assert ledger.coordinator(run) == (successor if opener else None)
        assert (ledger.opened_by(run), ledger.opened_by(some_digest())) == (opener, None)
        assert ledger.members(run) == MEMBERS
        with pytest.raises(LedgerConflictError):
            ledger.change_coordinator(some_digest(), successor)

    def test_who_administers_is_known(self, ledger: Ledger) -> None:
        administrator = ledger.administrator()
        assert administrator is None or ledger.administers(administrator)
        assert not ledger.administers(derive(1, "a stranger").address)

    def test_a_committed_round_reads_back_with_its_anchor(self, ledger: Ledger, run: Digest) -> None:
        commitment = a_round(run)
        anchor = ledger.commit(commitment)
        assert ledger.read(commitment.key) == (commitment, anchor)
        assert Domain(anchor.chain_id, anchor.contract) == ledger.domain

    def test_a_round_that_was_not_committed_reads_as_nothing(self, ledger: Ledger, run: Digest) -> None:
        assert ledger.read(RoundKey(run, 0, 0, 1)) is None

    def test_committing_the_same_round_again_returns_the_first_anchor(self, ledger: Ledger, run: Digest) -> None:
        first = a_round(run)
        anchor = ledger.commit(first)
        ledger.commit(a_round(run, 2, first.aggregate))
        assert ledger.commit(first) == anchor

    @pytest.mark.parametrize("field", ["parent", "updates_root", "aggregate", "count"])
    def test_a_committed_round_is_never_rewritten(self, ledger: Ledger, run: Digest, field: str) -> None:
        commitment = a_round(run)
        ledger.commit(commitment)
        fields: dict[str, Any] = {field: 3 if field == "count" else some_digest()}
        changed = replace(commitment, **fields)
        with pytest.raises(LedgerConflictError, match=r"round 1\b.* already committed"):
            ledger.commit(changed)
        found = ledger.read(commitment.key)
        assert found is not None
        assert found[0] == commitment

    def test_the_first_round_has_no_parent(self, ledger: Ledger, run: Digest) -> None:
        with pytest.raises(LedgerConflictError):
            ledger.commit(a_round(run, parent=some_digest()))

    def test_a_round_must_name_the_head_as_its_parent(self, ledger: Ledger, run: Digest) -> None:
        first = a_round(run)
        ledger.commit(first)
        with pytest.raises(LedgerConflictError):
            ledger.commit(a_round(run, 2, first.updates_root))
        ledger.commit(a_round(run, 2, first.aggregate))

    @pytest.mark.parametrize("number", [0, 3])
    def test_rounds_follow_each_other_without_gaps(self, ledger: Ledger, run: Digest, number: int) -> None:
        first = a_round(run)
        ledger.commit(first)
        with pytest.raises(LedgerConflictError):
            ledger.commit(a_round(run, number, first.aggregate))

    def test_lanes_have_heads_of_their_own(self, ledger: Ledger, run: Digest) -> None:
        rounds = [a_round(run, lane=lane) for lane in range(3)]
        for commitment in rounds:
            ledger.commit(commitment)
        assert [found and found[0] for found in (ledger.read(item.key) for item in rounds)] == rounds

    def test_a_round_needs_an_open_run(self, ledger: Ledger) -> None:
        with pytest.raises(LedgerConflictError):
            ledger.commit(a_round(some_digest()))

    # Erasures

    def test_a_lane_begins_with_nothing(self, ledger: Ledger, run: Digest) -> None:
        assert ledger.head(run, 0) == LaneHead(0, 0, ZERO_DIGEST)
        assert ledger.erasure(run, some_digest()) is None

    def test_an_erasure_moves_the_head_and_rewrites_nothing(self, ledger: Ledger, run: Digest) -> None:
        erasure, first = some_digest(), a_round(run)
        second = a_round(run, 2, first.aggregate)
        third = a_round(run, 3, second.aggregate)
        anchors = [ledger.commit(item) for item in (first, second, third)]
        ledger.attest(run, erasure, 0, some_digest())
        ledger.open_generation(GenerationOpening(run, 0, 1, erasure, 0, 1))
        assert ledger.head(run, 0) == LaneHead(1, 1, first.aggregate)
        again = replace(a_round(run, 2, first.aggregate), key=RoundKey(run, 0, 1, 2))
        ledger.commit(again)
        assert ledger.head(run, 0) == LaneHead(1, 2, again.aggregate)
        assert [ledger.read(item.key) for item in (first, second, third)] == [
            (item, anchor) for item, anchor in zip((first, second, third), anchors, strict=True)
        ]
        with pytest.raises(LedgerConflictError):
            ledger.commit(a_round(run, 4, third.aggregate))

    def test_a_later_generation_may_grow_from_any_round_that_was_committed(self, ledger: Ledger, run: Digest) -> None:
        first, erasures = a_round(run), (some_digest(), some_digest())
        ledger.commit(first)
        for erasure in erasures:
            ledger.attest(run, erasure, 0, some_digest())
        ledger.open_generation(GenerationOpening(run, 0, 1, erasures[0], 0, 0))
        fresh = replace(a_round(run), key=RoundKey(run, 0, 1, 1))
        ledger.commit(fresh)
        with pytest.raises(LedgerConflictError):
            ledger.open_generation(GenerationOpening(run, 0, 2, erasures[1], 1, 2))
        ledger.open_generation(GenerationOpening(run, 0, 2, erasures[1], 0, 1))
        assert ledger.head(run, 0) == LaneHead(2, 1, first.aggregate)

    def test_each_step_of_an_erasure_may_be_repeated(self, ledger: Ledger, run: Digest) -> None:
        erasure, attestation, certificate = (some_digest() for _ in range(3))
        steps: list[Callable[[], Anchor]] = [
            lambda: ledger.attest(run, erasure, 2, attestation),
            lambda: ledger.open_generation(GenerationOpening(run, 2, 1, erasure, 0, 0)),
            lambda: ledger.certify(run, erasure, certificate),
        ]
        anchors = [step() for step in steps]
        assert [step() for step in steps] == anchors
        assert len({anchor.transaction for anchor in anchors}) == 3
        found = ledger.erasure(run, erasure)
        assert found is not None
        assert (found.lane, found.attestation, found.certificate, found.generation) == (2, attestation, certificate, 1)
        assert found.attested_at == anchors[0].block

    def test_no_step_of_an_erasure_may_be_changed(self, ledger: Ledger, run: Digest) -> None:
        erasure = some_digest()
        opening = GenerationOpening(run, 0, 1, erasure, 0, 0)
        with pytest.raises(LedgerConflictError):
            ledger.open_generation(opening)
        with pytest.raises(LedgerConflictError):
            ledger.certify(run, erasure, some_digest())
        ledger.attest(run, erasure, 0, some_digest())
        with pytest.raises(LedgerConflictError, match="already attested"):
            ledger.attest(run, erasure, 0, some_digest())
        ledger.open_generation(opening)
        with pytest.raises(LedgerConflictError, match="already opened"):
            ledger.open_generation(replace(opening, generation=2))
        ledger.certify(run, erasure, some_digest())
        with pytest.raises(LedgerConflictError, match="already certified"):
            ledger.certify(run, erasure, some_digest())

    def test_an_erasure_is_of_one_lane_of_an_open_run(self, ledger: Ledger, run: Digest) -> None:
        erasure = some_digest()
        ledger.attest(run, erasure, 1, some_digest())
        with pytest.raises(LedgerConflictError):
            ledger.open_generation(GenerationOpening(run, 0, 1, erasure, 0, 0))
        with pytest.raises(LedgerConflictError):
            ledger.attest(some_digest(), erasure, 0, some_digest())

    # Identity

    def test_nobody_is_revoked_who_was_not(self, ledger: Ledger) -> None:
        assert ledger.revoked(MEMBERS) == {}
