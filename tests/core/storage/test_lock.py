"""One writer a run, however the last one ended."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import RunError, RunLockedError
from core.storage.lock import locked

HOLD = (
    "import pathlib, sys, time; from core.storage.lock import locked\n"
    "with locked(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
)


def test_a_second_writer_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "one.lock"
    with locked(path), pytest.raises(RunLockedError, match=f"run one is being written by process {os.getpid()}"):  # noqa: SIM117
        with locked(path):
            pass


def test_a_lock_that_was_given_back_can_be_taken(tmp_path: Path) -> None:
    for _ in range(2):
        with locked(tmp_path / "one.lock"):
            pass


def test_a_failure_inside_gives_the_lock_back(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "one.lock"):
        _ = 1 / 0
    with locked(tmp_path / "one.lock"):
        pass


def test_runs_do_not_lock_each_other(tmp_path: Path) -> None:
    with locked(tmp_path / "one.lock"), locked(tmp_path / "two.lock"):
        pass


def test_killing_the_holder_frees_the_run(tmp_path: Path) -> None:
    path = tmp_path / "one.lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(RunLockedError, match=f"process {holder.pid}"), locked(path):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    with locked(path):
        assert path.read_text() == str(os.getpid())


def test_a_folder_that_cannot_be_written_is_an_error_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="a writable state folder wanted"), locked(tmp_path / "file" / "one.lock"):
        pass
