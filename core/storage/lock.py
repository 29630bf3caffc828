"""The one lock of this project: flock on a file, which the kernel gives back when its holder dies, however it dies.

`take` locks any file for as long as it is open; `locked` is the lock of a run's one writer, which says who holds it.
`is_held` looks: it takes the lock as well, but a shared one, for a moment that whoever wants the lock waits out.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from core.errors import RunError, RunLockedError


def take(path: Path, *, wait: bool = False) -> FileIO:
    """Open `path`, created with its folder where it is missing, and hold its lock until the file is closed.

    With `wait` another holder is waited for; without it, raises BlockingIOError while there is one. Raises OSError when
    the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        _create(path)
    file = FileIO(path, "a+")
    try:
        if wait:
            fcntl.flock(file, fcntl.LOCK_EX)
        else:
            _take_at_once(file)
    except OSError:
        file.close()
        raise
    return file


def is_held(path: Path) -> bool:
    """Whether somebody has taken the lock of a file, which need not be there; raises OSError for an unreadable one."""
    try:
        with FileIO(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _take_at_once(file: FileIO) -> None:
    """Lock a file; raises BlockingIOError where another has taken it, and not where others are looking."""
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        # Beside others that look there is room for one more, beside a holder there is not.
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(file, fcntl.LOCK_UN)  # two that want it must not keep each other from it
        time.sleep(0.001)


def _create(path: Path) -> None:
    """Create a file, by root as one of its folder's owner, who could not use it otherwise; raises FileExistsError."""
    # Exclusively: what somebody has linked there is not given to anybody.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        if os.geteuid() == 0:
            owner = path.parent.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file LOCKS/RUN.* for the block; it holds the process id of its holder.

    Raises RunLockedError naming that process, RunError when the folder cannot be written.
    """
    try:
        file = take(path)
    except BlockingIOError as error:
        raise RunLockedError(f"run {path.stem} is being written by process {holder(path)}: end that first") from error
    except OSError as error:
        raise RunError(f"cannot write {path}: expected a writable state folder, got {error.strerror}") from error
    with file:
        file.truncate(0)
        file.write(str(os.getpid()).encode())
        yield


def holder(path: Path) -> int | None:
    """The process that took the lock last, which may have ended; None when nobody ever did."""
    try:
        return int(path.read_text(encoding="ascii") or 0) or None
    except FileNotFoundError:
        return None
