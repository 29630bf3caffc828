"""`foedus run`: one federation, in simulation or on a deployment."""

import time
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from console.backends.federation import Backend, federate
from console.deployments.federation_folder import FederationFolder
from console.options import (
    JsonOption,
    LogFormatOption,
    StateOption,
    command_app,
    readable_run,
    state_of,
)
from console.settings import DEFAULTS, build, restored
from console.views.logs import LogFormat, start_log
from console.views.report import report, tables
from console.views.tables import answer, screen
from core.config import RunConfig, key
from core.deployment import DECIDED
from core.errors import UsageError
from core.storage.state_folder import State, new_run_id

app = command_app()

_OF_ITS_ADAPTER = ("base", "quantisation", "rank", "alpha", "rslora", "target_modules", "target_blocks")
_OPTIONS = frozenset(field.name for field in fields(RunConfig)) - {"state", "resume"}


@app.command(epilog="Example: foedus run --data ./data --rounds 5 --json")
def run(  # noqa: PLR0913, PLR0917 - one parameter an option
    data: Annotated[str | None, typer.Option(help="Folder of the organisations' JSONL files, or hf:NAME.")] = None,
    validation: Annotated[str | None, typer.Option(help="JSONL of the shared validation set.")] = None,
    base: Annotated[str | None, typer.Option(help="Base model: smollm2, foedus-tiny, a folder or OWNER/NAME.")] = None,
    quantisation: Annotated[str | None, typer.Option(help="nf4, int8 or none.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds.")] = None,
    organisations: Annotated[int | None, typer.Option(help="How many organisations take part.")] = None,
    aggregation: Annotated[str | None, typer.Option(help="frozen-a, fedavg, stack or svd.")] = None,
    lane_size: Annotated[int | None, typer.Option(help="Organisations that learn together; 0 is all.")] = None,
    shards: Annotated[int | None, typer.Option(help="With lane-size 1: shards of an organisation's records.")] = None,
    composition: Annotated[str | None, typer.Option(help="How lanes are served: sum, ensemble or routing.")] = None,
    participation: Annotated[str | None, typer.Option(help="Policy: all, random, oort, q-learning …")] = None,
    chain: Annotated[str | None, typer.Option(help="embedded, anvil or an RPC URL.")] = None,
    private_chain: Annotated[str | None, typer.Option(help="The members' chain, likewise, or none.")] = None,
    store: Annotated[str | None, typer.Option(help="Folder or URL for sealed artifacts.")] = None,
    auditors: Annotated[str | None, typer.Option(help="Public keys that may read them, by commas.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    assignments: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML of settings.")] = None,
    from_run: Annotated[str | None, typer.Option("--from", metavar="RUN", help="Begin with what it serves.")] = None,
    resume: Annotated[str | None, typer.Option(metavar="RUN", help="Go on with a run, as it was started.")] = None,
    federation: Annotated[str | None, typer.Option(metavar="NAME", help="Run it on this coordinator.")] = None,
    backend: Annotated[Backend, typer.Option(help="Flower's Ray backend, or all in one process.")] = Backend.ray,
    log_format: LogFormatOption = LogFormat.text,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> int:
    """Run one federation, in simulation or on a deployment."""
    # First of all, while the only locals are the parameters: each option is a setting of the same name.
    options = {key(name): value for name, value in locals().items() if name in _OPTIONS and value is not None}
    start_log(log_format, part="run")
    started, deployment = time.monotonic(), FederationFolder.named(federation) if federation else None
    start = starting(state_of(deployment.state if deployment else state), resume, deployment, from_run)
    settings = check_decided(build(options, assignments or [], config, start), start, deployment)
    federate(settings, backend, deployment.folder if deployment else None)
    folder = State.of(settings)
    result = report(folder, folder.existing(settings.run)) | {"seconds": round(time.monotonic() - started, 3)}
    answer(result, _for_people(folder, settings, result, answers=not deployment), as_json=as_json)
    return 0 if result["status"] == "completed" else 1


def starting(
    folder: State, resume: str | None, deployment: FederationFolder | None, from_run: str | None = None
) -> RunConfig:
    """The settings before options: those of a run that is resumed, or the defaults and what a deployment decides.

    Of a run that another begins with, those that its adapter needs, and the form in which a state travels as it is.
    """
    if resume is not None:
        return replace(restored(folder, resume), run=resume, resume=True)
    decided = deployment.run_settings() if deployment else {}
    if from_run is not None:
        former = restored(folder, from_run)
        decided = {key(name): getattr(former, name) for name in _OF_ITS_ADAPTER} | {"wire": "fp32"} | decided
    return RunConfig.from_flat(DEFAULTS.to_flat() | decided | {"state": str(folder.folder), "run": new_run_id()})


def check_decided(settings: RunConfig, start: RunConfig, deployment: FederationFolder | None) -> RunConfig:
    """The settings; raises UsageError for one that would change what federation.toml and those admitted decide."""
    if deployment is None:
        return settings
    given, decided = settings.to_flat(), start.to_flat()
    if changed := sorted(name for name in DECIDED - {"run", "resume"} if given[name] != decided[name]):
        name = changed[0]
        raise UsageError(f"{name}: expected {decided[name]!r}, as federation.toml decides it, got {given[name]!r}")
    return settings


def _for_people(
    folder: State, settings: RunConfig, result: dict[str, Any], *, answers: bool
) -> Iterator[RenderableType]:
    """The tables, and in a simulation the model's own answers to a few held-out questions below them."""
    yield from tables(folder, folder.existing(settings.run), result)
    if answers and result["status"] == "completed":
        from console.views.answers import answers as answered  # noqa: PLC0415 - torch: wrong usage must not wait for it

        yield from answered(settings, readable_run(folder, settings.run, None), screen())
