"""One federation on a backend, to its end.

A run has one CLI: it holds a lock as long as it lives, which the kernel gives back however it dies. The CLI that gets
the lock may therefore end what an earlier one left behind. The ServerApp, the writer of the run, holds a lock of its
own, since it need not have been started by a CLI.
"""

from enum import StrEnum
from importlib import import_module
from pathlib import Path

from chain.devnet.service import ended_when_interrupted
from console.backends import processes
from console.backends.deployment import DeployedRun
from console.options import resume_command
from console.views.progress import watching, working
from console.views.tables import screen, show
from core.config import RunConfig
from core.deployment import CoordinatorSettings
from core.errors import FoedusError
from core.storage.lock import locked
from core.storage.state_folder import State
from llm.bases import find
from llm.data import read_data

NODES = 2
"""Flower nodes of a simulation; each hosts every second organisation."""


class Backend(StrEnum):
    """A way to run both apps: `run_simulation` of the module of this name in `console/backends/`."""

    ray = "ray"
    inline = "inline"


def federate(settings: RunConfig, backend: Backend, deployment: Path | None = None) -> None:
    """Run to the end, in simulation or on the coordinator of a deployment's folder.

    Raises the ServerApp's own error rather than Flower's echo of it.
    """
    state, run, console = State.of(settings), settings.run, screen(stderr=True)
    show(f"Run {run}, state in {state.folder}", on=console)
    # Before anything is started: a record that is malformed, or a name that is none, ends the run at once.
    with working("reading the data", console):
        notes = read_data(settings).notes
    show(*notes, on=console)
    # Here, where it can be seen: in Flower's processes a download or a conversion would pass in silence.
    with working(f"fetching the base {settings.base}", console):
        find(settings.base)
    with locked(state.lock(run).with_suffix(".cli")):
        processes.end_all(state.run(run).folder)
        with locked(state.lock(run)):  # another writer of the run: refuse before anything is started
            state.remember(settings)
        with ended_when_interrupted(state.folder), watching(console, state, run) as watch:
            try:
                if deployment:
                    DeployedRun(settings, CoordinatorSettings.read(deployment), watch).run()
                    if watch.failure:  # Flower is not asked: a ServerApp that fails says so
                        raise watch.failure
                    return
                # By name, since the inline backend imports Flower, which Ray's processes import for themselves.
                import_module(f"console.backends.{backend}").run_simulation(settings, NODES, watch)
            except KeyboardInterrupt:
                if state.run(run).started:
                    show(f"ending the run: {resume_command(state, run)} goes on with it", on=console)
                raise
            except FoedusError as error:
                watch()  # the last events, among them the ServerApp's own reason
                raise watch.failure or error from error
