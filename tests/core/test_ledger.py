"""The ledger in memory: the claims of every ledger, and what it adds for tests."""

import pytest

from core.canonical import Digest
from core.errors import LedgerConflictError
from core.ledger import Ledger, MemoryLedger
from core.round_key import RoundKey
from tests.behaviours.ledger import MEMBERS, LedgerClaims, a_round, some_digest


class TestMemoryLedger(LedgerClaims):
    @pytest.fixture
    def ledger(self) -> Ledger:
        return MemoryLedger()


def test_two_ledgers_share_nothing() -> None:
    one, two = MemoryLedger(), MemoryLedger()
    run = some_digest()
    one.open_run(run, MEMBERS)
    assert two.members(run) == frozenset()


def test_whoever_is_revoked_is_told_with_the_block() -> None:
    ledger = MemoryLedger()
    first, second, *_ = sorted(MEMBERS)
    assert ledger.revoked(MEMBERS) == {}
    ledger.revoke(first)
    block = ledger.revoked(MEMBERS)[first]
    ledger.revoke(second)
    ledger.revoke(first)
    assert ledger.revoked(MEMBERS) == {first: block, second: block + 1}
    assert ledger.revoked([second]) == {second: block + 1}


def test_every_anchor_is_a_block_later() -> None:
    ledger, run = MemoryLedger(), some_digest()
    ledger.open_run(run, MEMBERS)
    first = a_round(run)
    anchors = [ledger.commit(first), ledger.commit(a_round(run, 2, first.aggregate))]
    assert anchors[0].block < anchors[1].block
    assert anchors[0].transaction != anchors[1].transaction


def test_a_round_of_a_run_that_is_not_open_is_refused() -> None:
    run = Digest("0x" + "ab" * 32)
    with pytest.raises(LedgerConflictError, match=run):
        MemoryLedger().commit(a_round(run))
    assert MemoryLedger().read(RoundKey(run, 0, 0, 1)) is None
