"""Heartbeats of all tasks come from one thread, which nothing ends."""

import threading
import time
from collections.abc import Callable

import pytest

from client_app.heartbeat import STUCK, Heartbeat
from tests.commands import PATIENCE_SECONDS


def ignored(_status: int) -> None:
    """Not the end of this process: the heartbeats of all tests watch all its threads, and go on behind their test."""


def wait(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_it_beats_at_once_and_again_and_not_behind_the_block() -> None:
    heartbeat, beats = Heartbeat(0.01, ignored), list[int]()
    for _ in range(2):
        before = len(beats)
        with heartbeat.of(lambda: beats.append(1)):
            wait(lambda before=before: len(beats) >= before + 3)
        after = len(beats)
        time.sleep(0.05)
        assert len(beats) == after


def test_a_beat_that_goes_wrong_is_followed_by_others() -> None:
    heartbeat, beats = Heartbeat(0.01, ignored), list[int]()

    def beat() -> None:
        beats.append(1)
        raise MemoryError

    with heartbeat.of(beat):
        wait(lambda: len(beats) >= 3)


def test_a_task_starts_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where memory is short, Python waits for ever for a thread that could not begin."""
    heartbeat, beats = Heartbeat(60, ignored), list[int]()
    monkeypatch.setattr(threading.Thread, "start", lambda _: pytest.fail("a thread was started"))
    with heartbeat.of(lambda: beats.append(1)):
        wait(lambda: len(beats) == 1)


def test_the_block_ends_behind_a_beat_that_is_under_way() -> None:
    heartbeat, began, ended = Heartbeat(60, ignored), threading.Event(), list[int]()

    def slow() -> None:
        began.set()
        time.sleep(0.05)
        ended.append(1)

    with heartbeat.of(slow):
        assert began.wait(PATIENCE_SECONDS)
    assert ended == [1]


@pytest.mark.parametrize("by_another", [False, True], ids=["who made the heartbeat", "another thread"])
def test_a_worker_that_waits_for_a_thread_that_never_begins_is_ended(
    monkeypatch: pytest.MonkeyPatch, by_another: bool
) -> None:
    """As Python does where the new thread has no memory for its first line."""
    ended, goes_on = list[int](), threading.Event()

    def end(status: int) -> None:
        ended.append(status)
        goes_on.set()

    def start_one_that_never_begins() -> None:
        never = threading.Thread(target=lambda: None)
        monkeypatch.setattr(never, "_started", goes_on)
        never._bootstrap = lambda: None  # type: ignore[attr-defined] # what would say that it has begun
        never.start()
        threading._limbo.pop(never)  # type: ignore[attr-defined] # nobody takes out what never began

    def work() -> None:
        Heartbeat(0.05, end)
        if not by_another:
            start_one_that_never_begins()

    workers = [threading.Thread(target=work, daemon=True)]
    if by_another:
        workers.append(threading.Thread(target=start_one_that_never_begins, daemon=True))
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(PATIENCE_SECONDS)
    assert ended[:1] == [STUCK]


def test_one_that_computes_for_long_is_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that have begun are no sign of it, however long they run."""
    ended, looks, enumerate_ = list[int](), list[int](), threading.enumerate

    def look() -> list[threading.Thread]:
        looks.append(1)
        return enumerate_()

    finish = threading.Event()
    long = threading.Thread(target=finish.wait)
    long.start()
    monkeypatch.setattr(threading, "enumerate", look)
    Heartbeat(0.01, ended.append)
    wait(lambda: len(looks) > 5)
    finish.set()
    long.join()
    assert ended == []
