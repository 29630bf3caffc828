"""Heartbeats: a SuperNode counts a task as lost after a minute without one.

One thread sends those of all tasks, from the worker's start on; Flower starts a thread for each task. Where memory is
short, Python waits for ever for a thread that has died before its first line, and whoever started it with it. Libraries
start threads, too: the heartbeat ends a worker that waits so, and its node starts another.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging import ERROR, WARNING

from flwr.common.constant import HEARTBEAT_BASE_MULTIPLIER, HEARTBEAT_CALL_TIMEOUT, HEARTBEAT_DEFAULT_INTERVAL
from flwr.common.logger import log

SECONDS = HEARTBEAT_BASE_MULTIPLIER * (HEARTBEAT_DEFAULT_INTERVAL - HEARTBEAT_CALL_TIMEOUT)
"""Between two heartbeats: Flower's own, without its chance."""


STUCK = 75
"""Exit status of a worker that waits for a thread that will never begin: a failure that may be gone the next time."""


class Heartbeat:
    """Calls a function again and again from a thread of its own, as long as there is one to call."""

    def __init__(self, seconds: float = SECONDS, end: Callable[[int], object] = os._exit) -> None:
        """`end` ends the process: an exception would only end the heartbeat."""
        self._seconds, self._end = seconds, end
        self._beat: Callable[[], object] | None = None
        self._starting = set[threading.Thread]()
        self._begun, self._beating = threading.Event(), threading.Lock()
        threading.Thread(target=self._run, daemon=True, name="heartbeat").start()

    @contextmanager
    def of(self, beat: Callable[[], object]) -> Iterator[None]:
        """Call `beat` now and every some seconds while the block runs, and not once behind it."""
        self._beat = beat
        self._begun.set()
        try:
            yield
        finally:
            with self._beating:  # one that is under way comes to its end
                self._beat = None

    def _run(self) -> None:
        while True:
            if not self._begun.wait(self._seconds) and self._is_stuck():
                log(ERROR, "a thread that was started did not begin: the worker ends, and its node starts another")
                self._end(STUCK)
            self._begun.clear()
            with self._beating:
                try:
                    if self._beat:
                        self._beat()
                # Whatever goes wrong with one, the next one may arrive.
                except Exception as error:  # noqa: BLE001
                    log(WARNING, "a heartbeat was lost: %s", error)

    def _is_stuck(self) -> bool:
        """Whether a thread that was started has not begun, and had not at the last look."""
        # The main thread is listed behind its end, where Python waits for others that it has started.
        among = set(threading.enumerate()) - {threading.main_thread()}
        before, self._starting = self._starting, {one for one in among if not one.is_alive()}
        return not before.isdisjoint(self._starting)
