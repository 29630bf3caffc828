"""`foedus evaluate`: loss, perplexity and exact match of the base and of the served model."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Any

import typer

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
from console.views.tables import answer, table
from llm.records import Collection, Record

app = command_app()

_FIGURES = ("loss", "perplexity", "exact_match")


@app.command(epilog="Example: foedus evaluate --data ./data --limit 0")
def evaluate(
    run: RunArgument = "",
    data: Annotated[str | None, typer.Option(help="Folder of JSONL files, or hf:NAME [the run's own].")] = None,
    limit: Annotated[int, typer.Option(min=0, help="Records of each data set; 0 is all.")] = 64,
    base: BaseOption = "",
    key: ReaderKeyOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the base with the served model, on every data set: loss, perplexity and exact match."""
    from llm.evaluate import evaluate as measure  # noqa: PLC0415 - torch: seconds that help need not wait
    from llm.served import serving  # noqa: PLC0415
    from llm.sources import read_data  # noqa: PLC0415

    folder = state_of(state)
    served_run = readable_run(folder, run, key)
    settings = saved(folder, served_run.name)
    if data is not None:
        settings = replace(settings, data=str(absolute("data", data)), validation="", organisations=0)
    sets = read_data(settings)
    with working(f"loading the base {served_run.genesis.base.name}"):
        served = serving(served_run, base)
    figures: dict[str, dict[str, Any]] = {}
    for name, records in _data_sets(sets):
        figures[name] = {"records": min(len(records), limit or len(records))}
        for of, adapter in (("base", None), ("global", served.adapter)):
            with working(f"measuring {name}, {of}"):
                measured = measure(served.model, adapter, records, settings.max_length, limit or None)
            figures[name][of] = {figure: _finite(getattr(measured, figure)) for figure in _FIGURES}
    headings = ("data set", "records", "loss", "perplexity", "exact match")
    rows = (
        (name, found["records"], *(_change(found["base"][f], found["global"][f]) for f in _FIGURES))
        for name, found in figures.items()
    )
    parts = [table(f"Run {served_run.name}: base → served", headings, rows, numbers=headings[1:])]
    answer({"run": served_run.name, "aggregate": served.state.digest, "data_sets": figures}, parts, as_json=as_json)


def _finite(figure: float) -> float | None:
    """A figure as JSON can hold it: the perplexity of a loss above 709 nats is no number."""
    return figure if math.isfinite(figure) else None


def _change(*figures: float | None) -> str:
    return " → ".join("–" if figure is None else f"{figure:.3g}" for figure in figures)


def _data_sets(sets: Collection) -> Iterator[tuple[str, Sequence[Record]]]:
    """The organisations' held-out records by name, and the shared validation set's domains as validation/DOMAIN."""
    for organisation in sets.organisations:
        yield organisation.name, organisation.dev
    for name in sorted({record.domain for record in sets.validation}):
        yield f"validation/{name or 'all'}", [record for record in sets.validation if record.domain == name]
