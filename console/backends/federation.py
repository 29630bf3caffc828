"""One federation on a backend, to its end.

A run has one CLI: it holds a lock as long as it lives, which the kernel gives back however it dies. Whoever gets the
lock may therefore end what an earlier CLI left behind. The ServerApp, the writer of the run, holds a lock of its own,
since it need not have been started by a CLI.
"""

from collections.abc import Callable
from enum import StrEnum

from console.backends import processes
from console.backends.ray import run_simulation
from console.views.progress import Watcher, watching
from console.views.tables import screen, show
from core.config import RunConfig
from core.errors import FoedusError
from core.storage.lock import locked
from core.storage.state_folder import State

NODES = 2
"""Flower nodes of a simulation; each hosts every second organisation."""


class Backend(StrEnum):
    """What runs the ClientApps."""

    ray = "ray"
    inline = "inline"


def federate(settings: RunConfig, backend: Backend) -> None:
    """Run to the end; raises the ServerApp's own error rather than Flower's echo of it."""
    state, run, console = State.of(settings), settings.run, screen(stderr=True)
    show(f"Run {run}, state in {state.folder}", on=console)
    with locked(state.lock(run).with_suffix(".cli")):
        processes.end_all(state.run(run).folder)
        with locked(state.lock(run)):  # another writer of the run: refuse before anything is started
            state.remember(settings)
        with watching(console, state, run) as watch:
            try:
                _BACKENDS[backend](settings, watch)
            except FoedusError as error:
                watch()
                raise watch.failure or error from error


def _ray(settings: RunConfig, watch: Watcher) -> None:
    run_simulation(settings, NODES, watch)


def _inline(settings: RunConfig, watch: Watcher) -> None:
    from client_app.app import app as client_app  # noqa: PLC0415 - seconds of imports that only this backend needs
    from console.backends.inline import run_inline  # noqa: PLC0415
    from server_app.app import app as server_app  # noqa: PLC0415

    run_inline(server_app, client_app, NODES, settings.to_flat(), watch)


_BACKENDS: dict[Backend, Callable[[RunConfig, Watcher], None]] = {Backend.ray: _ray, Backend.inline: _inline}
