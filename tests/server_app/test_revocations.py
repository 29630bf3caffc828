"""Revocations are known soon, and nobody waits for them."""

import threading
import time
from collections.abc import Iterable

import pytest

from core.canonical import Address
from core.errors import LedgerUnreachableError
from core.ledger import MemoryLedger
from server_app.revocations import Revocations, watched
from tests.behaviours.ledger import MEMBERS
from tests.waiting import PATIENCE_SECONDS, until

FIRST, SECOND, *_ = sorted(MEMBERS)


class Shaky(MemoryLedger):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.refused = False, threading.Event()
        self.fault: Exception = LedgerUnreachableError("nothing answers")

    def revoked(self, organisations: Iterable[Address]) -> dict[Address, int]:
        if self.down:
            self.refused.set()
            raise self.fault
        return super().revoked(organisations)


def own(members: Iterable[Address]) -> dict[Address, Address]:
    """Members that still have the keys they came with."""
    return {member: member for member in members}


@pytest.mark.parametrize("fault", [LedgerUnreachableError("nothing answers"), ValueError("no number")])
def test_a_revocation_is_known_soon_also_after_the_ledger_was_down(fault: Exception) -> None:
    ledger = Shaky()
    ledger.fault = fault
    ledger.revoke(FIRST)
    revocations = Revocations(ledger, own(MEMBERS), every=0.01)
    assert revocations() == {FIRST}
    ledger.down = True
    assert ledger.refused.wait(PATIENCE_SECONDS)
    ledger.revoke(SECOND)
    assert revocations() == {FIRST}
    ledger.down = False
    until(lambda: revocations() == {FIRST, SECOND})
    revocations.close()
    assert not revocations._thread.is_alive()


def test_what_is_being_asked_is_answered_before_nobody_asks_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would start the chain again that is ended behind it."""
    ledger = Shaky()
    revocations = Revocations(ledger, own(MEMBERS), every=0.01)
    asked, answered = threading.Event(), threading.Event()

    def slowly(_: Iterable[Address]) -> dict[Address, int]:
        asked.set()
        time.sleep(0.3)
        answered.set()
        return {}

    monkeypatch.setattr(ledger, "revoked", slowly)
    assert asked.wait(PATIENCE_SECONDS)
    answered.clear()
    revocations.close()
    assert answered.is_set()


def test_others_are_not_asked_for() -> None:
    ledger = MemoryLedger()
    ledger.revoke(FIRST)
    with watched(ledger, own([SECOND])) as revocations:
        assert revocations() == frozenset()


def test_who_starts_without_a_ledger_knows_nothing() -> None:
    ledger = Shaky()
    ledger.down = True
    with pytest.raises(LedgerUnreachableError):
        Revocations(ledger, own(MEMBERS))


def test_the_key_that_signs_now_is_the_one_that_is_asked_for() -> None:
    """A key that was stolen is revoked, and the one that replaced it goes on for its organisation."""
    ledger, new = MemoryLedger(), Address("0x00000000000000000000000000000000000000aA")
    ledger.revoke(FIRST)
    with watched(ledger, {FIRST: new}) as revocations:
        assert revocations() == frozenset()
    ledger.revoke(new)
    with watched(ledger, {FIRST: new}) as revocations:
        assert revocations() == {FIRST}
