"""One writer a run: an advisory lock that the kernel gives back when its holder dies, however it dies."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from core.errors import RunError, RunLockedError


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file LOCKS/RUN.* for the block.

    Raises RunLockedError naming the process that holds it, RunError when the folder cannot be written.
    """
    try:
        file = _take(path)
    except BlockingIOError as error:
        raise RunLockedError(f"run {path.stem} is being written by process {holder(path)}: end that first") from error
    except OSError as error:
        raise RunError(f"cannot write {path}: expected a writable state folder, got {error.strerror}") from error
    with file:
        yield


def holder(path: Path) -> int | None:
    """The process that took the lock last, which may have ended; None when nobody ever did."""
    try:
        return int(path.read_text(encoding="ascii") or 0) or None
    except FileNotFoundError:
        return None


def _take(path: Path) -> IO[str]:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+", encoding="ascii")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
    except OSError:
        file.close()
        raise
    return file
