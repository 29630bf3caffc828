"""A ledger as an organisation reads it: from a node of its own choosing, without a key, and without waiting for it.

It is opened by the first question. Nothing is started for it, no answer is waited for longer than a second, and a
ledger that did not answer is left alone for a while: a chain that is down costs all organisations of a process a second
in half a minute, not a second a question.
"""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, TypeVar

from chain.contract import BoundContract
from chain.ledger import EthereumLedger
from chain.nodes import running
from core.canonical import Address, Digest
from core.errors import IntegrityError, LedgerUnreachableError
from core.keys import Domain
from core.ledger import Anchor, Erasure, LaneHead, LedgerView, RoundCommitment
from core.round_key import RoundKey

PATIENCE_SECONDS: Final = 1.0
QUIET_SECONDS: Final = 30.0

T = TypeVar("T")


class Observer:
    """See core.ledger.LedgerView; every question may raise LedgerUnreachableError."""

    def __init__(self, open_: Callable[[], LedgerView], quiet: float = QUIET_SECONDS) -> None:
        """`open_` finds the ledger; `quiet`: seconds in which it is not asked again after it did not answer."""
        self._open = open_
        self._quiet = quiet
        self._ledger: LedgerView | None = None
        self._asleep_until = 0.0
        self._members: dict[Digest, frozenset[Address]] = {}
        self._coordinators: dict[Digest, Address] = {}

    @property
    def domain(self) -> Domain:
        """See `LedgerView.domain`."""
        return self._ask(lambda ledger: ledger.domain)

    def members(self, run: Digest) -> frozenset[Address]:
        """See `LedgerView.members`; of a run that is open they are asked once, since they never change."""
        if run not in self._members:
            found = self._ask(lambda ledger: ledger.members(run))
            self._members |= {run: found} if found else {}
            return found
        return self._members[run]

    def coordinator(self, run: Digest) -> Address | None:
        """See `LedgerView.coordinator`; asked once, as the members are."""
        if run not in self._coordinators:
            found = self._ask(lambda ledger: ledger.coordinator(run))
            self._coordinators |= {run: found} if found else {}
            return found
        return self._coordinators[run]

    def opened_by(self, run: Digest) -> Address | None:
        """See `LedgerView.opened_by`."""
        return self._ask(lambda ledger: ledger.opened_by(run))

    def administrator(self) -> Address | None:
        """See `LedgerView.administrator`."""
        return self._ask(lambda ledger: ledger.administrator())

    def administers(self, account: Address) -> bool:
        """See `LedgerView.administers`."""
        return self._ask(lambda ledger: ledger.administers(account))

    def opened_at(self, run: Digest) -> int:
        """See `LedgerView.opened_at`."""
        return self._ask(lambda ledger: ledger.opened_at(run))

    def read(self, key: RoundKey) -> tuple[RoundCommitment, Anchor] | None:
        """See `LedgerView.read`."""
        return self._ask(lambda ledger: ledger.read(key))

    def head(self, run: Digest, lane: int) -> LaneHead:
        """See `LedgerView.head`."""
        return self._ask(lambda ledger: ledger.head(run, lane))

    def erasure(self, run: Digest, erasure: Digest) -> Erasure | None:
        """See `LedgerView.erasure`."""
        return self._ask(lambda ledger: ledger.erasure(run, erasure))

    def credit_root(self, run: Digest, epoch: int) -> Digest:
        """See `LedgerView.credit_root`."""
        return self._ask(lambda ledger: ledger.credit_root(run, epoch))

    def revoked(self, organisations: Iterable[Address]) -> dict[Address, int]:
        """See `LedgerView.revoked`."""
        return self._ask(lambda ledger: ledger.revoked(organisations))

    def _ask(self, question: Callable[[LedgerView], T]) -> T:
        if time.monotonic() < self._asleep_until:
            raise LedgerUnreachableError(f"the ledger did not answer in the last {self._quiet:g} s")
        try:
            self._ledger = self._ledger or self._open()
            return question(self._ledger)
        except LedgerUnreachableError:
            self._asleep_until = time.monotonic() + self._quiet
            self._members.clear()
            self._coordinators.clear()
            self._ledger = None  # a chain that was started again has another port
            raise


def observe(chain: str, state: Path, contract: Address) -> Observer:
    """The public ledger `contract` on `chain` (``embedded``, ``anvil`` or a URL) of the folder `state`.

    Every question raises IntegrityError when there is no such contract.
    """

    def opened() -> EthereumLedger:
        bound = BoundContract(running(chain, state, PATIENCE_SECONDS), "PublicLedger", contract)
        if not bound.genuine:
            raise IntegrityError(f"expected a PublicLedger, got other code: {bound.domain}")
        return EthereumLedger(bound)

    return Observer(opened)
