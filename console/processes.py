"""The processes of a run: all that carry its mark in their environment, and nobody else's.

A run's CLI, SuperLink, ServerApp and Ray actors are separate processes, any of which may be killed. They inherit one
environment variable, so what a dead CLI left behind can be found and ended before the run is resumed.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from core.errors import RunLockedError

MARK = "COVENANT_RUN_PROCESS"


def mark(run: Path, owner: int) -> dict[str, str]:
    """The environment variable for the processes of `run` that the CLI with process id `owner` starts."""
    return {MARK: f"{owner}:{run}"}


def end_leftovers(run: Path) -> int:
    """End what a dead CLI left of a run; returns how many processes.

    Raises RunLockedError when the CLI that started them is alive: the run has a writer.
    """
    found = list(_marked(run))
    owners = {owner for owner, _ in found if psutil.pid_exists(owner)}
    if owners:
        raise RunLockedError(f"run {run.name} is being written under process {min(owners)}: end that one first")
    return end([process for _, process in found])


def end_own(run: Path, owner: int) -> int:
    """End everything that this CLI started for a run."""
    return end([process for other, process in _marked(run) if other == owner])


def end(processes: list[psutil.Process]) -> int:
    """SIGTERM, then SIGKILL for those that stay longer than five seconds."""
    for process in processes:
        _quietly(process.terminate)
    _, alive = psutil.wait_procs(processes, timeout=5)
    for process in alive:
        _quietly(process.kill)
    psutil.wait_procs(alive, timeout=5)
    return len(processes)


def _marked(run: Path) -> list[tuple[int, psutil.Process]]:
    """(owner, process) of every living process with the mark of `run`."""
    found = []
    for process in psutil.process_iter():
        try:
            value = process.environ().get(MARK, "")
        except (psutil.Error, OSError):  # gone meanwhile, or another user's
            continue
        owner, _, path = value.partition(":")
        if path == str(run):
            found.append((int(owner), process))
    return found


def _quietly(action: Callable[[], None]) -> None:
    """A process that is gone already is what was wanted."""
    with suppress(psutil.NoSuchProcess):
        action()
