"""One writer a run: an advisory lock that the kernel gives back when its holder dies, however it dies."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.errors import RunLockedError


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file for the block; raises RunLockedError naming the process that holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise RunLockedError(f"run {path.stem} is being written by process {file.read().strip()}") from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
