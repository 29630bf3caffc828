"""The processes of a run: all that carry its mark in their environment, and nobody else's.

A run's SuperLink, ServerApp and Ray actors are separate processes, any of which may be killed, as may the CLI that
started them. They inherit one environment variable, so they can all be found and ended, by that CLI or by the next.
"""

from contextlib import suppress
from pathlib import Path

import psutil

MARK = "FOEDUS_RUN_PROCESS"

_PATIENCE_SECONDS = 5.0


def mark(run: Path) -> dict[str, str]:
    """The environment variable for the processes of `run`."""
    return {MARK: str(run)}


def end_all(run: Path) -> int:
    """End every process of a run, SIGTERM before SIGKILL; returns how many there were."""
    ended = 0
    while found := marked(run):  # again until none is left: a process may start another before it ends
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        _, staying = psutil.wait_procs(found, timeout=_PATIENCE_SECONDS)
        for process in staying:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(staying, timeout=_PATIENCE_SECONDS)
        ended += len(found)
    return ended


def marked(run: Path) -> list[psutil.Process]:
    """Every living process with the mark of `run`."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # gone meanwhile, or another user's
            if process.environ().get(MARK) == str(run):
                found.append(process)
    return found


def alive(pid: int) -> bool:
    """Whether a process lives; one that has ended and was not waited for does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
