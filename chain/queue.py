"""The durable queue that keeps the chain off a federation's critical path.

A round is written to the queue's file (fsync) and anchored by a thread while the next one trains. The file is JSON
Lines (core/storage/jsonl.py), {tag: commitment} or {"key", "anchor"} a line, and locked by its one writer.

Every round ends up on the ledger exactly once, whatever dies in between: `Ledger.commit` is idempotent, so what has no
anchor is simply committed again. A chain that is down is tried again until it answers. A chain that was reorganised
has forgotten its newest rounds: the newest anchors are read again when the queue opens, when it closes, whenever it
has been idle for a while and when the ledger refuses a round, and what is gone is committed again in order.
"""

import logging
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Generic

from chain.commitments import Commitment, Recorder, parse, tag
from core.canonical import Digest
from core.errors import LedgerConflictError, LedgerError
from core.ledger import Anchor
from core.round_key import RoundKey
from core.storage import jsonl
from core.storage.jsonl import JsonLines

RECHECK_SECONDS: Final = 30.0
LAST_ANSWER_SECONDS: Final = 5.0
"""For the answer that a thread waits for when it is to end: of a development chain that is ended meanwhile it would not
come, and the question would start that chain again."""
_FIRST_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 10.0

_log = logging.getLogger(__name__)


class CommitQueue(Generic[Commitment]):
    """Commitments of one kind on their way to a ledger. One process at a time may hold a file."""

    def __init__(self, path: Path, ledger: Recorder[Commitment]) -> None:
        """Open or create `path` and go on with what is in it.

        Raises RunLockedError when another process holds it, IntegrityError when it is damaged.
        """
        self._ledger: Recorder[Commitment] = ledger
        self._file = JsonLines(path)
        self._commitments: dict[RoundKey, Commitment]
        try:
            self._commitments, self._anchors = _load(path)
        except BaseException:
            self._file.close()  # else its lock lasts as long as the error
            raise
        self._changed = threading.Condition()
        self._closing = False
        self._stopped = threading.Event()
        self._failure: LedgerConflictError | OSError | None = None
        self._thread = threading.Thread(target=self._run, name="commit-queue", daemon=True)
        self._thread.start()

    def put(self, commitment: Commitment) -> None:
        """Make a commitment durable and return; putting it again changes nothing.

        Raises LedgerConflictError when the queue holds another commitment for that round, or when the ledger has
        refused an earlier one: the run must not go on.
        """
        with self._changed:
            self._raise_failure()
            known = self._commitments.get(commitment.key)
            if known is None:
                self._file.append({tag(commitment): asdict(commitment)})
                self._commitments[commitment.key] = commitment
                self._changed.notify_all()
            elif known != commitment:
                raise LedgerConflictError(
                    f"{commitment.key} is already queued with other values: expected {known}, got {commitment}"
                )

    def anchors(self) -> dict[RoundKey, Anchor]:
        """The anchors of the rounds that have one so far."""
        with self._changed:
            return dict(self._anchors)

    def pending(self) -> int:
        """How many commitments have no anchor yet."""
        with self._changed:
            return len(self._commitments) - len(self._anchors)

    def close(self, timeout: float) -> int:
        """Wait at most `timeout` seconds until everything is anchored; returns how many commitments are not.

        They stay in the file for whoever opens it next. What the ledger is being asked then is waited for some seconds
        more. Raises LedgerConflictError when the ledger has refused one.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout)
        with self._changed:
            # The thread may still wait for a chain that is down: from here on it records nothing.
            self._stopped.set()
            self._file.close()
        self._thread.join(LAST_ANSWER_SECONDS)
        with self._changed:
            self._raise_failure()
        return self.pending()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    # The thread

    def _run(self) -> None:
        recheck, pause = True, _FIRST_PAUSE
        while not self._stopped.is_set():
            # Read once: whoever closes while this turn works gets a turn of its own, with everything it has put.
            closing = self._closing
            try:
                self._settle(recheck or closing)
            except (LedgerConflictError, OSError) as error:
                self._failure = error
                return
            # Whatever a node answers once: a thread that ended here would leave every later round without an anchor.
            except Exception as error:  # noqa: BLE001
                _log.warning("%s; trying again", error, exc_info=not isinstance(error, LedgerError))
                recheck = True
                self._stopped.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            if closing:
                return
            pause = _FIRST_PAUSE
            with self._changed:
                work = self._changed.wait_for(lambda: self._closing or self._missing(), RECHECK_SECONDS)
            # Nothing to do for a while: time to see whether the chain still has what it had.
            recheck = not work

    def _settle(self, recheck: bool) -> None:
        """Commit everything that has no anchor, in the order in which it was put."""
        if recheck:
            self._forget_reorganised()
        while missing := self._missing():
            try:
                self._record(missing[0].key, self._ledger.commit(missing[0]))
            except LedgerConflictError:
                if not self._forget_reorganised():
                    raise

    def _missing(self) -> list[Commitment]:
        with self._changed:
            if self._stopped.is_set():
                return []
            return [item for key, item in self._commitments.items() if key not in self._anchors]

    def _forget_reorganised(self) -> bool:
        """Forget the anchors that the ledger no longer has; returns whether there were any."""
        lanes: dict[tuple[Digest, int], list[RoundKey]] = {}
        for key in self.anchors():
            lanes.setdefault((key.genesis, key.lane), []).append(key)
        forgotten = False
        for keys in lanes.values():
            # Back from the newest anchor to the first that still stands: the ones before it stand too.
            for key in sorted(keys, reverse=True):
                committed = self._ledger.read(key)
                if committed is None or committed[0] != self._commitments[key]:
                    forgotten = True
                    with self._changed:
                        del self._anchors[key]
                elif committed[1] == self._anchors[key]:
                    break
                else:
                    self._record(key, committed[1])
        return forgotten

    def _record(self, key: RoundKey, anchor: Anchor) -> None:
        with self._changed:
            if not self._stopped.is_set():
                self._file.append({"key": asdict(key), "anchor": asdict(anchor)})
                self._anchors[key] = anchor


def read_anchors(path: Path) -> dict[RoundKey, Anchor]:
    """The anchors in a queue's file, for readers; empty when there is no file. Raises IntegrityError on damage."""
    return _load(path)[1]


def _load(path: Path) -> tuple[dict[RoundKey, Any], dict[RoundKey, Anchor]]:
    """The commitments and the anchors in a queue's file; raises IntegrityError on damage."""
    commitments: dict[RoundKey, Any] = {}
    anchors: dict[RoundKey, Anchor] = {}
    for sent in jsonl.read_as(path, parse):
        if isinstance(sent, tuple):
            anchors[sent[0]] = sent[1]
        else:
            commitments[sent.key] = sent
    return commitments, {key: anchor for key, anchor in anchors.items() if key in commitments}
