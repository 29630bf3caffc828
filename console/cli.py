"""The command line. Progress and logs go to stderr, results to stdout; with --json, stdout is one JSON object."""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import click
import typer
from rich.console import Console

from console.progress import Watcher, watching
from console.report import report, show
from console.settings import build, resumed
from console.simulation import run_simulation
from core.config import RunConfig, key
from core.errors import CovenantError
from core.places import State, new_run_id

app = typer.Typer(
    name="covenant",
    help="Federated QLoRA fine-tuning with signed updates and a public record.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

StateOption = Annotated[Path | None, typer.Option("--state", help="State folder [$COVENANT_HOME, else .covenant].")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
RunArgument = Annotated[str, typer.Argument(metavar="[RUN]", help="Run id; the newest without it.")]


class Backend(StrEnum):
    """What runs the ClientApps."""

    ray = "ray"
    inline = "inline"


_SETTINGS = frozenset(field.name for field in fields(RunConfig)) - {"state", "resume"}

NODES = 2
"""Flower nodes of a simulation; each hosts every second organisation."""


def run_command() -> int:
    """Run the command line and return its exit code; errors of ours become one line."""
    try:
        return int(app(standalone_mode=False) or 0)
    except CovenantError as error:
        sys.stderr.write(f"covenant: {error}\n")
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        sys.stderr.write("covenant: interrupted\n")
        return 130


@app.command(epilog="Example: covenant run --data ./data --rounds 5 --json")
def run(  # noqa: PLR0913, PLR0917 - one parameter an option
    data: Annotated[str | None, typer.Option(help="Folder of organisations' JSONL files, or hf:NAME.")] = None,
    validation: Annotated[str | None, typer.Option(help="JSONL that no organisation owns.")] = None,
    base: Annotated[str | None, typer.Option(help="Base model: a folder or a name.")] = None,
    quantisation: Annotated[str | None, typer.Option(help="nf4, int8 or none.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds.")] = None,
    organisations: Annotated[int | None, typer.Option(help="How many organisations take part.")] = None,
    aggregation: Annotated[str | None, typer.Option(help="frozen-a, fedavg, stack or svd.")] = None,
    lane_size: Annotated[int | None, typer.Option(help="Organisations that learn together; 0 is all.")] = None,
    participation: Annotated[str | None, typer.Option(help="Who is asked in a round: all or random.")] = None,
    chain: Annotated[str | None, typer.Option(help="embedded, anvil or an RPC URL.")] = None,
    private_chain: Annotated[str | None, typer.Option(help="The members' chain, likewise.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    assignments: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML of settings.")] = None,
    resume: Annotated[str | None, typer.Option(metavar="RUN", help="Go on with a run.")] = None,
    backend: Annotated[Backend, typer.Option(help="Flower's Ray backend, or all in one process.")] = Backend.ray,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> int:
    """Run one federation in simulation."""
    options = {key(name): value for name, value in locals().items() if name in _SETTINGS}
    started = time.monotonic()
    folder = _state(state)
    if resume is None:
        fixed = {"state": str(folder.folder), "run": new_run_id()}
        settings = build(fixed | options, assignments or [], config)
    else:
        settings = resumed(folder, resume)
    _federate(settings, backend)
    result = report(folder, folder.existing(settings.run)) | {"seconds": round(time.monotonic() - started, 3)}
    return _finish(folder, result, as_json)


@app.command(epilog="Example: covenant status --json")
def status(run: RunArgument = "", state: StateOption = None, as_json: JsonOption = False) -> int:
    """Rounds, participants, losses and digests of a run."""
    folder = _state(state)
    return _finish(folder, report(folder, folder.existing(run)), as_json)


def _federate(settings: RunConfig, backend: Backend) -> None:
    """Run to the end; raises what the ServerApp said, rather than Flower's echo of it."""
    events = State.of(settings).events(settings.run)
    with watching(Console(stderr=True), events, settings.rounds) as watch:
        try:
            BACKENDS[backend](settings, watch)
        except CovenantError as error:
            watch()
            raise watch.failure or error from error


def _ray(settings: RunConfig, watch: Watcher) -> None:
    run_simulation(settings, NODES, watch)


def _inline(settings: RunConfig, watch: Watcher) -> None:
    from client_app.app import app as client  # noqa: PLC0415 - seconds of imports that only this backend needs
    from server_app.app import app as server  # noqa: PLC0415
    from server_app.inline import run_inline  # noqa: PLC0415

    run_inline(server, client, NODES, settings.to_flat())
    watch()


BACKENDS: dict[Backend, Callable[[RunConfig, Watcher], None]] = {Backend.ray: _ray, Backend.inline: _inline}


def _state(option: Path | None) -> State:
    return State(Path(option or os.environ.get("COVENANT_HOME") or ".covenant").expanduser().absolute())


def _finish(state: State, result: dict[str, Any], as_json: bool) -> int:
    """Print a run's report; exit code 1 unless the run is complete."""
    if as_json:
        print_json(result)
    else:
        show(Console(), state, state.existing(result["run"]), result)
    return 0 if result["status"] == "completed" else 1


def print_json(value: Any) -> None:
    """One JSON object on stdout."""
    sys.stdout.write(json.dumps(value, allow_nan=False) + "\n")
