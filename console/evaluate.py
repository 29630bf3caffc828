"""`foedus evaluate`: loss, perplexity and exact match of the base and of the served model."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType

from console.options import (
    BaseOption,
    JsonOption,
    ReaderKeyOption,
    RunArgument,
    StateOption,
    command_app,
    readable_run,
    state_of,
)
from console.settings import absolute, saved
from console.views.progress import working
from console.views.report import members_of
from console.views.tables import answer, table
from core import seeds
from core.names import listed
from core.storage.run_folder import RunFolder
from llm.records import Collection, Record

if TYPE_CHECKING:
    from llm.served import Serving

app = command_app()

Figures = tuple[dict[str, dict[str, Any]], list[tuple[object, ...]]]
"""Figures of base and served model by data set or task, and the rows of a table of them."""
_FIGURES = ("loss", "perplexity", "exact_match")


@app.command(epilog="Example: foedus evaluate --data ./data --limit 0")
def evaluate(  # noqa: PLR0913, PLR0917 - one parameter an option
    run: RunArgument = "",
    data: Annotated[str | None, typer.Option(help="Folder of JSONL files, or hf:NAME [the run's own].")] = None,
    limit: Annotated[int, typer.Option(min=0, help="Records of each data set; 0 is all.")] = 64,
    sample: Annotated[int, typer.Option(min=0, help="Organisations, drawn by the run's seed; 0 is all.")] = 100,
    tasks: Annotated[str, typer.Option(help="Tasks of lm_eval, by commas, in place of data sets.")] = "",
    task_folder: Annotated[Path | None, typer.Option(help="Folder with lm_eval tasks of one's own.")] = None,
    base: BaseOption = "",
    key: ReaderKeyOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the base with the served model, on every data set: loss, perplexity and exact match."""
    from llm.data import read_data  # noqa: PLC0415 - torch: seconds that help need not wait
    from llm.harness import check_installed  # noqa: PLC0415
    from llm.served import serving  # noqa: PLC0415

    if tasks:
        check_installed()
    folder = state_of(state)
    served_run = readable_run(folder, run, key)
    settings = saved(folder, served_run.name)
    if data is not None:
        settings = replace(settings, data=str(absolute("data", data)), validation="", organisations=0)
    sets = Collection((), (), ()) if tasks else read_data(settings)
    with working(f"loading the base {served_run.genesis.base.name}"):
        served = serving(served_run, base)
    if tasks:
        found, rows = _tasks(served, tasks, task_folder, limit)
    else:
        found, rows = _measured(served, sampled(sets, sample, served_run.genesis.seed), settings.max_length, limit)
    headings = ("task", "figure", "value") if tasks else ("data set", "records", "loss", "perplexity", "exact match")
    parts: list[RenderableType] = [
        table(f"Run {served_run.name}: base → served", headings, rows, numbers=headings[-3:])
    ]
    missing = absent(served_run, sets) if data is None and not tasks else []
    parts += [f"{listed(missing)}: missing: the run's data have nothing of them"] if missing else []
    kind = {"tasks": found} if tasks else {"data_sets": found, "missing": missing}
    answer({"run": served_run.name, "aggregate": served.state.digest, **kind}, parts, as_json=as_json)


def absent(run: RunFolder, sets: Collection) -> list[str]:
    """The members of whom the run's own data have nothing; of other data nobody says whose they should be."""
    there = {organisation.name for organisation in sets.organisations}
    return [name for name in members_of(run) if name not in there]


def sampled(sets: Collection, most: int, seed: int) -> Collection:
    """The data of so many organisations at most, drawn by the seed; the same ones each time."""
    if not most or len(sets.organisations) <= most:
        return sets
    drawn = sorted(sets.organisations, key=lambda one: seeds.ticket(seed, one.name, 0))[:most]
    return replace(sets, organisations=tuple(sorted(drawn, key=lambda one: one.name)))


def _measured(served: "Serving", sets: Collection, max_length: int, limit: int) -> Figures:
    """Every data set with base and served model."""
    from llm.evaluate import evaluate as measure  # noqa: PLC0415 - torch

    found: dict[str, dict[str, Any]] = {}
    for name, records in _data_sets(sets):
        found[name] = {"records": min(len(records), limit or len(records))}
        for of, adapter in (("base", None), ("global", served.adapter)):
            with working(f"measuring {name}, {of}"):
                measured = measure(served.model, adapter, records, max_length, limit or None)
            found[name][of] = {
                # The perplexity of a loss above 709 nats is no number that JSON could hold.
                f: value if math.isfinite(value := getattr(measured, f)) else None
                for f in _FIGURES
            }
    changes = {name: [_change(of["base"][f], of["global"][f]) for f in _FIGURES] for name, of in found.items()}
    return found, [(name, of["records"], *changes[name]) for name, of in found.items()]


def _tasks(served: "Serving", tasks: str, folder: Path | None, limit: int) -> Figures:
    """Every task of the harness with base and served model."""
    from llm.harness import task_figures  # noqa: PLC0415 - torch

    only = served.one_adapter("--tasks")
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    found: dict[str, dict[str, Any]] = {}
    for of, adapter in (("base", None), ("global", only)):
        with working(f"asking {', '.join(names)}, {of}"):
            for name, figures in task_figures(served.model, adapter, names, folder, limit or None).items():
                found.setdefault(name, {})[of] = figures
    rows: list[tuple[object, ...]] = [
        (name, f, _change(of["base"][f], of["global"][f])) for name, of in found.items() for f in of["base"]
    ]
    return found, rows


def _change(*figures: float | None) -> str:
    return " → ".join("–" if figure is None else f"{figure:.3g}" for figure in figures)


def _data_sets(sets: Collection) -> Iterator[tuple[str, Sequence[Record]]]:
    """The organisations' held-out records by name, and the shared validation set's domains as validation/DOMAIN."""
    for organisation in sets.organisations:
        yield organisation.name, organisation.dev
    for name in sorted({record.domain for record in sets.validation}):
        yield f"validation/{name or 'all'}", [record for record in sets.validation if record.domain == name]
