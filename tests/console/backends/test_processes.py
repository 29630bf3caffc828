import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from console.backends import processes
from tests.waiting import until

SLEEP = "import time; print(flush=True); time.sleep(600)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEP
PARENT = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEP!r}]); " + SLEEP

Start = Callable[[str, Path], int]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start Python code as a process of a run; returns its id once it runs."""
    with ExitStack() as stack:

        def make(code: str, run: Path) -> int:
            environment = {**os.environ, **processes.mark(run)}
            process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stdout
            process.stdout.readline()
            return process.pid

        yield make


def test_only_the_processes_of_a_run_are_ended(start: Start, tmp_path: Path) -> None:
    mine, other = start(SLEEP, tmp_path / "one"), start(SLEEP, tmp_path / "two")
    assert processes.end_all(tmp_path / "one") == 1
    assert not processes.alive(mine)
    assert processes.alive(other)


def test_children_are_ended_with_their_parent(start: Start, tmp_path: Path) -> None:
    start(PARENT, tmp_path)
    until(lambda: len(processes.marked(tmp_path)) == 2)
    assert processes.end_all(tmp_path) == 2
    assert processes.marked(tmp_path) == []


def test_who_ignores_the_request_is_killed(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_PATIENCE_SECONDS", 0.1)
    stubborn = start(STUBBORN, tmp_path)
    processes.end_all(tmp_path)
    assert not processes.alive(stubborn)


def test_a_process_that_nobody_has_waited_for_yet_is_not_alive(start: Start, tmp_path: Path) -> None:
    pid = start(SLEEP, tmp_path)
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert not processes.alive(pid)
