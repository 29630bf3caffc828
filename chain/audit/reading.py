"""Artifacts as an audit reads them: opened, digests checked, wraps computed again; by other processes, ahead of it.

An artifact is read alike whatever became of the others, and reading is most of an audit's work. What came of it is
judged where the audit asks, in its order.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from typing import Self

from core.canonical import Address, Digest
from core.errors import FoedusError
from core.storage.artifacts import Artifacts
from core.storage.blobs import Folder
from core.storage.readers import NOBODY

Members = tuple[Address, ...] | None
"""The readers that something is sealed for; None is everybody."""

WORTH = 256
"""Artifacts that are worth the seconds in which processes start."""
_MOST_PROCESSES = 4
"""More of them read faster than the audit judges."""
_AHEAD_BYTES = 64 * 2**20
"""Read, or being read, and not yet asked for."""
_in_this_process: list[Artifacts] = []


@dataclass(frozen=True)
class Opened:
    """What came of reading an artifact: its bytes, or an error; and what is wrong with its wraps."""

    data: bytes = b""
    unlocked: bool = False
    """Whether its key was opened; else the error is one of its wraps."""
    error: FoedusError | OSError | None = None
    wraps: FoedusError | OSError | None = None

    @classmethod
    def of(cls, artifacts: Artifacts, name: Digest, members: Members) -> Self:
        """Read an artifact, which should be sealed for `members` where it is known who the readers are."""
        try:
            unlocked = artifacts.unlock(artifacts.place(name))
        except (FoedusError, OSError) as error:
            return cls(error=error)
        try:
            data = bytes(artifacts.open_packed(name, unlocked).data)
        except (FoedusError, OSError) as error:
            return cls(unlocked=True, error=error)
        try:
            if artifacts.readers != NOBODY:
                artifacts.check_wraps(unlocked, members)
        except (FoedusError, OSError) as error:
            return cls(data, unlocked=True, wraps=error)
        return cls(data, unlocked=True)


Read = Callable[[Digest, Members], Opened]
"""Reads an artifact that should be sealed for some members."""


@contextmanager
def reading_ahead(artifacts: Artifacts, wanted: list[tuple[Digest, Members]], processes: int) -> Iterator[Read]:
    """What reads artifacts for the block, which will ask for the `wanted` ones in this order.

    Without other `processes`, where there are few artifacts or the store is elsewhere, each is read when it is asked
    for.
    """
    processes = min(processes, _MOST_PROCESSES)
    if processes < 1 or len(wanted) < WORTH or not isinstance(artifacts.blobs, Folder):
        yield lambda name, members: Opened.of(artifacts, name, members)
        return
    # Spawned: a fork would copy locks that other threads of this process hold.
    pool = ProcessPoolExecutor(processes, get_context("spawn"), _begin, (artifacts,))
    try:
        yield ReadAhead(artifacts, pool, wanted).read
    finally:
        pool.shutdown(cancel_futures=True)


class ReadAhead:
    """Has a pool read what will be asked for next, as much as fits into some memory."""

    def __init__(
        self, artifacts: Artifacts, pool: ProcessPoolExecutor, wanted: Iterable[tuple[Digest, Members]]
    ) -> None:
        self.artifacts, self.pool = artifacts, pool
        self._wanted = iter(wanted)
        self._ahead = deque[tuple[tuple[Digest, Members], int, Future[Opened]]]()
        self._bytes = 0

    def read(self, name: Digest, members: Members) -> Opened:
        """See `Read`: what was read ahead, else read now."""
        self._fill()
        if any(asked == (name, members) for asked, _, _ in self._ahead):
            while True:
                asked, size, future = self._ahead.popleft()
                self._bytes -= size
                if asked == (name, members):
                    break
                future.cancel()  # the audit has passed it over, as it does behind a record that cannot be read
            try:
                return future.result()
            except BrokenExecutor:  # the system has ended a process, as it does where memory is short
                self._wanted = iter(())
        return Opened.of(self.artifacts, name, members)

    def _fill(self) -> None:
        while self._bytes < _AHEAD_BYTES and (asked := next(self._wanted, None)):
            try:
                future = self.pool.submit(_read, *asked)
            except BrokenExecutor:
                return
            size = self.artifacts.size(asked[0])
            self._ahead.append((asked, size, future))
            self._bytes += size


def _begin(artifacts: Artifacts) -> None:
    """Begin a process of the pool."""
    _in_this_process.append(artifacts)
    threading.Thread(target=_end_with_the_audit, daemon=True).start()


def _end_with_the_audit() -> None:
    """End this process when the audit's ends, however that does: it would wait for work for ever."""
    if audit := parent_process():
        wait([audit.sentinel])
        os._exit(1)


def _read(name: Digest, members: Members) -> Opened:
    return Opened.of(_in_this_process[0], name, members)


def spare_processors() -> int:
    """The processors that this process may use besides its own."""
    return len(os.sched_getaffinity(0)) - 1
