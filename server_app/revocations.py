"""Revocations: the organisations whose registration has ended, asked for in the background.

No round waits for the chain.
"""

import logging
import threading
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from typing import Final

from chain.queue import LAST_ANSWER_SECONDS
from core.canonical import Address
from core.ledger import LedgerView

EVERY_SECONDS: Final = 1.0

_log = logging.getLogger(__name__)


class Revocations:
    """The revocations that a ledger told of so far; one that does not answer changes nothing."""

    def __init__(self, ledger: LedgerView, keys: Mapping[Address, Address], every: float = EVERY_SECONDS) -> None:
        """Ask once, then every so many seconds; raises LedgerUnreachableError when nothing answers the first time.

        `keys`: the address of the key that signs now, which is the one that is registered, of each organisation.
        """
        self._ledger = ledger
        self._keys = dict(keys)
        self._every = every
        self._known: Set[Address] = self._ask()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="revocations", daemon=True)
        self._thread.start()

    def __call__(self) -> Set[Address]:
        """The organisations that are known to be revoked; answers at once."""
        return self._known

    def close(self) -> None:
        """Ask no more; what is being asked is waited for."""
        self._stopped.set()
        self._thread.join(LAST_ANSWER_SECONDS)

    def _run(self) -> None:
        while not self._stopped.wait(self._every):
            try:
                self._known = self._known | self._ask()
            # Whatever a node answers once: a thread that ended would let the revoked go on for the rest of the run.
            except Exception as error:  # noqa: BLE001
                _log.warning("revocations cannot be read: %s: %s; asking again", type(error).__name__, error)

    def _ask(self) -> frozenset[Address]:
        ended = self._ledger.revoked(self._keys.values())
        return frozenset(organisation for organisation, key in self._keys.items() if key in ended)


@contextmanager
def watched(ledger: LedgerView, keys: Mapping[Address, Address]) -> Iterator[Revocations]:
    """The revocations on a ledger, as long as the block lasts; `keys` as `Revocations` takes them."""
    revocations = Revocations(ledger, keys)
    try:
        yield revocations
    finally:
        revocations.close()
