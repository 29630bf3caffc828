"""`foedus run` and `foedus status`: one federation in simulation, and what became of it.

A run has one CLI: it holds a lock as long as it lives, which the kernel gives back however it dies. Whoever gets the
lock may therefore end what an earlier CLI left behind. The ServerApp, the writer of the run, holds a lock of its own,
since it need not have been started by a CLI.
"""

import time
from collections.abc import Callable
from dataclasses import fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from console.agents import described, learnt, market
from console.backends import processes
from console.backends.ray import run_simulation
from console.options import JsonOption, RunArgument, StateOption, answer, print_json, state_of
from console.report import report, show
from console.settings import DEFAULTS, build, saved
from console.views.progress import Watcher, watching
from core.config import RunConfig, key
from core.errors import FoedusError
from core.storage.lock import locked
from core.storage.run_folder import RunFolder
from core.storage.state_folder import State, new_run_id

NODES = 2
"""Flower nodes of a simulation; each hosts every second organisation."""


class Backend(StrEnum):
    """What runs the ClientApps."""

    ray = "ray"
    inline = "inline"


def run(  # noqa: PLR0913, PLR0917 - one parameter an option
    data: Annotated[str | None, typer.Option(help="Folder of organisations' JSONL files, or hf:NAME.")] = None,
    validation: Annotated[str | None, typer.Option(help="JSONL that no organisation owns.")] = None,
    base: Annotated[str | None, typer.Option(help="Base model: a folder or a name.")] = None,
    quantisation: Annotated[str | None, typer.Option(help="nf4, int8 or none.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds.")] = None,
    organisations: Annotated[int | None, typer.Option(help="How many organisations take part.")] = None,
    aggregation: Annotated[str | None, typer.Option(help="frozen-a, fedavg, stack or svd.")] = None,
    lane_size: Annotated[int | None, typer.Option(help="Organisations that learn together; 0 is all.")] = None,
    shards: Annotated[int | None, typer.Option(help="With lane-size 1: shards of an organisation's records.")] = None,
    composition: Annotated[str | None, typer.Option(help="How lanes are served: sum, ensemble or routing.")] = None,
    participation: Annotated[str | None, typer.Option(help="Who is asked: all, random, oort, q-learning …")] = None,
    chain: Annotated[str | None, typer.Option(help="embedded, anvil or an RPC URL.")] = None,
    private_chain: Annotated[str | None, typer.Option(help="The members' chain, likewise, or none.")] = None,
    store: Annotated[str | None, typer.Option(help="Folder or URL for sealed artifacts.")] = None,
    auditors: Annotated[str | None, typer.Option(help="Public keys that may read them, by commas.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    assignments: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML of settings.")] = None,
    resume: Annotated[str | None, typer.Option(metavar="RUN", help="Go on with a run, as it was started.")] = None,
    backend: Annotated[Backend, typer.Option(help="Flower's Ray backend, or all in one process.")] = Backend.ray,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> int:
    """Run one federation in simulation."""
    options = {key(name): value for name, value in locals().items() if name in _OPTIONS and value is not None}
    started = time.monotonic()
    folder = state_of(state)
    if resume is None:
        start = replace(DEFAULTS, state=str(folder.folder), run=new_run_id())
    else:
        start = replace(saved(folder, resume), run=resume, resume=True)
    settings = build(options, assignments or [], config, start)
    federate(settings, backend)
    folder = State.of(settings)
    result = report(folder, folder.existing(settings.run)) | {"seconds": round(time.monotonic() - started, 3)}
    _print(folder, result, as_json)
    return 0 if result["status"] == "completed" else 1


def status(
    run: RunArgument = "",
    agents: Annotated[bool, typer.Option("--agents", help="Show bids, credits, payments and learnt policies.")] = False,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> int:
    """Rounds, participants, losses and digests of a run."""
    folder = state_of(state)
    if agents:
        return _agents(folder, folder.existing(run), as_json)
    result = report(folder, folder.existing(run))
    _print(folder, result, as_json)
    return 1 if result["status"] == "failed" else 0


_OPTIONS = frozenset(field.name for field in fields(RunConfig)) - {"state", "resume"}


def federate(settings: RunConfig, backend: Backend) -> None:
    """Run to the end; raises what the ServerApp said, rather than Flower's echo of it."""
    state, console = State.of(settings), Console(stderr=True)
    console.print(f"Run {settings.run}, state in {state.folder}", soft_wrap=True, highlight=False)
    with locked(state.lock(settings.run).with_suffix(".cli")):
        processes.end_all(state.run(settings.run).folder)
        with locked(state.lock(settings.run)):  # whoever else writes the run: refuse before anything is started
            state.remember(settings)
        with watching(console, state.events(settings.run)) as watch:
            try:
                BACKENDS[backend](settings, watch)
            except FoedusError as error:
                watch()
                raise watch.failure or error from error


def _ray(settings: RunConfig, watch: Watcher) -> None:
    run_simulation(settings, NODES, watch)


def _inline(settings: RunConfig, watch: Watcher) -> None:
    from client_app.app import app as client  # noqa: PLC0415 - seconds of imports that only this backend needs
    from console.backends.inline import run_inline  # noqa: PLC0415
    from server_app.app import app as server  # noqa: PLC0415

    run_inline(server, client, NODES, settings.to_flat())
    watch()


BACKENDS: dict[Backend, Callable[[RunConfig, Watcher], None]] = {Backend.ray: _ray, Backend.inline: _inline}


def _agents(state: State, run: RunFolder, as_json: bool) -> int:
    """What agents bid, earned and learnt; their budget is known where they are simulated."""
    simulated = all(member.derived for member in run.genesis.organisations)
    rounds = market(state, run)
    found = learnt(state, run, saved(state, run.name).budget if simulated else None)
    lines = list(described(found, rounds)) or ["no agents"]
    answer({"run": run.name, "rounds": rounds, "agents": found}, lines, as_json)
    return 0


def _print(state: State, result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(result)
    else:
        show(Console(), state, state.existing(result["run"]), result)
