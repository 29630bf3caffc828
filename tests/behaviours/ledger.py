"""What every ledger promises, whatever holds it. A test module subclasses `LedgerClaims` and gives it a ledger."""

import secrets
from dataclasses import replace
from typing import Any

import pytest

from core.canonical import ZERO_DIGEST, Digest, digest
from core.errors import LedgerConflictError
from core.keys import derive
from core.ledger import Ledger, RoundCommitment, RoundKey

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

    def test_a_committed_round_reads_back_with_its_anchor(self, ledger: Ledger, run: Digest) -> None:
        commitment = a_round(run)
        anchor = ledger.commit(commitment)
        assert ledger.read(commitment.key) == (commitment, anchor)
        assert (anchor.chain_id, anchor.contract) == (ledger.chain_id, ledger.contract)

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
        with pytest.raises(LedgerConflictError, match="round 1 is already committed with other values"):
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
