"""Heartbeats of all tasks come from one thread, which nothing ends."""

import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from client_app.heartbeat import STUCK, Heartbeat
from tests.waiting import PATIENCE_SECONDS, until


def ignored(_status: int) -> None:
    """Not the end of this process: the heartbeats of all tests watch all its threads, and go on behind their test."""


def test_it_beats_at_once_and_again_and_not_behind_the_block() -> None:
    heartbeat, beats = Heartbeat(0.01, ignored), list[int]()
    for _ in range(2):
        before = len(beats)
        with heartbeat.of(lambda: beats.append(1)):
            until(lambda before=before: len(beats) >= before + 3)
        after = len(beats)
        time.sleep(0.05)
        assert len(beats) == after


def test_a_beat_that_goes_wrong_is_followed_by_others() -> None:
    heartbeat, beats = Heartbeat(0.01, ignored), list[int]()

    def beat() -> None:
        beats.append(1)
        raise MemoryError

    with heartbeat.of(beat):
        until(lambda: len(beats) >= 3)


def test_a_task_starts_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where memory is short, Python waits for ever for a thread that could not begin."""
    heartbeat, beats = Heartbeat(60, ignored), list[int]()
    monkeypatch.setattr(threading.Thread, "start", lambda _: pytest.fail("a thread was started"))
    with heartbeat.of(lambda: beats.append(1)):
        until(lambda: len(beats) == 1)


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
    ended, goes_on, never = list[int](), threading.Event(), threading.Thread(target=lambda: None)
    monkeypatch.setattr(never, "_started", SimpleNamespace(wait=goes_on.wait, is_set=lambda: False))
    never._bootstrap = lambda: None  # type: ignore[attr-defined] # what would say that it has begun

    def end(status: int) -> None:
        ended.append(status)
        threading._limbo.pop(never, None)  # type: ignore[attr-defined] # where it would stay as long as its process
        goes_on.set()

    def start() -> None:
        if not by_another:
            Heartbeat(0.05, end)
        never.start()

    starter = threading.Thread(target=start, daemon=True)
    starter.start()
    if by_another:
        Heartbeat(0.05, end)
    starter.join(PATIENCE_SECONDS)
    assert ended == [STUCK]


def test_one_that_computes_for_long_is_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that have begun are no sign of it, however long they run."""
    ended, looks, enumerate_, finish = list[int](), list[int](), threading.enumerate, threading.Event()
    long = threading.Thread(target=finish.wait)
    long.start()
    others = set(enumerate_())
    Heartbeat(0.01, ended.append)
    (own,) = set(enumerate_()) - others

    def look() -> list[threading.Thread]:
        looks.extend([1] if threading.current_thread() is own else [])  # heartbeats of other tests look, too
        return enumerate_()

    monkeypatch.setattr(threading, "enumerate", look)
    until(lambda: len(looks) > 5)
    finish.set()
    long.join()
    assert ended == []


def test_a_process_whose_main_thread_has_ended_is_not_ended_before_its_other_threads() -> None:
    """Python waits for them with a main thread that lives no more, and has begun long before."""
    ending = (
        "import threading, time; from client_app.heartbeat import Heartbeat; Heartbeat(0.01); "
        "threading.Thread(target=lambda: (time.sleep(0.5), print('whole'))).start()"
    )
    done = subprocess.run([sys.executable, "-c", ending], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "whole\n", "")
