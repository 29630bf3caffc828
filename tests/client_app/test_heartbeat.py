"""Heartbeats of all tasks come from one thread, which nothing ends."""

import threading
import time
from collections.abc import Callable

import pytest

from client_app.heartbeat import STUCK, Heartbeat
from tests.commands import PATIENCE_SECONDS


def wait(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_it_beats_at_once_and_again_and_not_behind_the_block() -> None:
    heartbeat, beats = Heartbeat(0.01), list[int]()
    for _ in range(2):
        before = len(beats)
        with heartbeat.of(lambda: beats.append(1)):
            wait(lambda before=before: len(beats) >= before + 3)
        after = len(beats)
        time.sleep(0.05)
        assert len(beats) == after


def test_a_beat_that_goes_wrong_is_followed_by_others() -> None:
    heartbeat, beats = Heartbeat(0.01), list[int]()

    def beat() -> None:
        beats.append(1)
        raise MemoryError

    with heartbeat.of(beat):
        wait(lambda: len(beats) >= 3)


def test_a_task_starts_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where memory is short, Python waits for ever for a thread that could not begin."""
    heartbeat, beats = Heartbeat(60), list[int]()
    monkeypatch.setattr(threading.Thread, "start", lambda _: pytest.fail("a thread was started"))
    with heartbeat.of(lambda: beats.append(1)):
        wait(lambda: len(beats) == 1)


def test_the_block_ends_behind_a_beat_that_is_under_way() -> None:
    heartbeat, began, ended = Heartbeat(60), threading.Event(), list[int]()

    def slow() -> None:
        began.set()
        time.sleep(0.05)
        ended.append(1)

    with heartbeat.of(slow):
        assert began.wait(PATIENCE_SECONDS)
    assert ended == [1]


def test_a_worker_that_waits_for_a_thread_that_never_begins_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Python does where the new thread has no memory for its first line."""
    ended, goes_on = list[int](), threading.Event()

    def work() -> None:
        def end(status: int) -> None:
            ended.append(status)
            goes_on.set()

        Heartbeat(0.05, end)
        never = threading.Thread(target=lambda: None)
        monkeypatch.setattr(never, "_started", goes_on)
        never._bootstrap = lambda: None  # type: ignore[attr-defined] # what would say that it has begun
        never.start()

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    worker.join(PATIENCE_SECONDS)
    assert ended == [STUCK]


def test_one_that_computes_for_long_is_not_ended() -> None:
    ended = list[int]()
    heartbeat = Heartbeat(0.01, ended.append)
    with heartbeat.of(lambda: None):
        for _ in range(20):
            threading.Thread(target=time.sleep, args=(0.005,)).start()
            time.sleep(0.01)
    assert ended == []
