"""The processes of a run: all that carry its mark in their environment, and nobody else's.

A run's SuperLink, ServerApp and Ray actors are separate processes, any of which may be killed, as may the CLI that
started them. They inherit one environment variable, so they can all be found and ended, by that CLI or by the next.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

MARK = "FOEDUS_RUN_PROCESS"

_PATIENCE_SECONDS = 5.0


def mark(run: Path) -> dict[str, str]:
    """The environment variable for the processes of `run`."""
    return {MARK: str(run)}


def end_all(run: Path) -> int:
    """End every process of a run, SIGTERM before SIGKILL; returns how many there were.

    Repeated until none is left: a process may start another before it ends.
    """
    ended = 0
    while found := marked(run):
        _end(found)
        ended += len(found)
    return ended


def marked(run: Path) -> list[psutil.Process]:
    """Every living process with the mark of `run`."""
    return [process for process in psutil.process_iter() if _mark_of(process) == str(run)]


def alive(pid: int) -> bool:
    """Whether a process lives; one that has ended and was not waited for does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _mark_of(process: psutil.Process) -> str | None:
    try:
        mark: str | None = process.environ().get(MARK)
    except (psutil.Error, OSError):  # gone meanwhile, or another user's
        return None
    return mark


def _end(found: list[psutil.Process]) -> None:
    for process in found:
        _quietly(process.terminate)
    _, staying = psutil.wait_procs(found, timeout=_PATIENCE_SECONDS)
    for process in staying:
        _quietly(process.kill)
    psutil.wait_procs(staying, timeout=_PATIENCE_SECONDS)


def _quietly(action: Callable[[], None]) -> None:
    """A process that is gone already is what was wanted."""
    with suppress(psutil.NoSuchProcess):
        action()
