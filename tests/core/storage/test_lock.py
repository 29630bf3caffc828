"""One writer a run, however the last one ended."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from core.errors import RunError, RunLockedError
from core.storage.lock import holder, is_held, locked, take

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


def test_any_file_can_be_locked_until_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "lock"
    with take(path), pytest.raises(BlockingIOError):
        take(path)
    take(path).close()


def test_whoever_waits_gets_the_lock_when_it_is_free(tmp_path: Path) -> None:
    first = take(tmp_path / "lock")
    threading.Timer(0.05, first.close).start()
    with take(tmp_path / "lock", wait=True):
        assert first.closed


def test_looking_tells_whether_somebody_has_a_lock(tmp_path: Path) -> None:
    assert not is_held(tmp_path / "lock")
    with take(tmp_path / "lock"):
        assert is_held(tmp_path / "lock")
    assert not is_held(tmp_path / "lock")


def test_whoever_looks_at_a_lock_keeps_nobody_from_taking_it_and_passes_for_no_holder(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    looking = (tmp_path / "lock").open("rb")
    fcntl.flock(looking, fcntl.LOCK_SH)  # as it has it for a moment
    assert not is_held(tmp_path / "lock")
    threading.Timer(0.05, looking.close).start()
    with take(tmp_path / "lock"):
        assert looking.closed


def test_taking_a_lock_leaves_the_content_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    with take(tmp_path / "file") as file:
        file.write(b" and more")
    assert (tmp_path / "file").read_bytes() == b"content and more"


def test_a_lock_that_was_never_taken_has_no_holder(tmp_path: Path) -> None:
    assert holder(tmp_path / "one.lock") is None
    take(tmp_path / "one.lock").close()
    assert holder(tmp_path / "one.lock") is None
    with locked(tmp_path / "one.lock"):
        assert holder(tmp_path / "one.lock") == os.getpid()


def test_runs_do_not_lock_each_other(tmp_path: Path) -> None:
    with locked(tmp_path / "one.lock"), locked(tmp_path / "two.lock"):
        pass


def test_killing_the_holder_frees_the_run(tmp_path: Path) -> None:
    path = tmp_path / "one.lock"
    writer = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"held\n"
    with pytest.raises(RunLockedError, match=f"process {writer.pid}"), locked(path):
        pass
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    with locked(path):
        assert path.read_text() == str(os.getpid())


def test_a_folder_that_cannot_be_written_is_an_error_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=str(tmp_path / "file" / "one.lock")), locked(tmp_path / "file" / "one.lock"):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, which works in folders of others")
def test_what_root_creates_in_anothers_folder_is_that_others(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 54321)
    with take(tmp_path / "new"):
        pass
    assert ((tmp_path / "new").stat().st_uid, (tmp_path / "new").stat().st_gid) == (12345, 54321)
    (tmp_path / "roots").touch()
    (tmp_path / "link").symlink_to(tmp_path / "roots")
    for name in ("roots", "link"):
        with take(tmp_path / name):
            pass
    assert (tmp_path / "roots").stat().st_uid == 0, "what was there, or is linked from there, stays whose it is"
