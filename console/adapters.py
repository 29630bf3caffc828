"""`foedus evaluate` and `foedus export`: what a run's adapter is worth, and the adapter itself."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from console.card import model_card
from console.options import JsonOption, KeyOption, RunArgument, StateOption, answer, print_json, run_of, state_of
from console.settings import absolute, saved

if TYPE_CHECKING:
    from llm.records import Collection, Record
    from llm.served import Serving

Json = dict[str, Any]


def evaluate(
    run: RunArgument = "",
    data: Annotated[str | None, typer.Option(help="Folder of JSONL files, or hf:NAME [the run's own].")] = None,
    limit: Annotated[int, typer.Option(min=0, help="Records of each data set; 0 is all.")] = 64,
    key: KeyOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Loss, perplexity and exact match of the base and of what the run serves, on every data set."""
    from llm.served import serving  # noqa: PLC0415
    from llm.sources import read_data  # noqa: PLC0415 - seconds of imports that other commands need not wait for

    folder = state_of(state)
    found = run_of(folder, run, key)
    settings = saved(folder, found.name)
    if data is not None:
        settings = replace(settings, data=str(absolute("data", data)), validation="", organisations=0)
    sets = read_data(settings)
    served = serving(found)
    figures = {name: _figures(served, records, settings.max_length, limit) for name, records in _data_sets(sets)}
    result = {"run": found.name, "aggregate": served.state.digest, "data_sets": figures}
    if as_json:
        print_json(result)
    else:
        Console().print(_table(result))


def export(
    out: Annotated[Path, typer.Option(help="The folder to make.")],
    run: RunArgument = "",
    key: KeyOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the adapter as PEFT and vLLM load it, with a model card; lanes that are not summed, each in a folder."""
    from llm.export import export as write  # noqa: PLC0415 - seconds of imports that other commands need not wait for
    from llm.served import serving  # noqa: PLC0415

    found = run_of(state_of(state), run, key)
    served = serving(found)
    parts = dict(zip(_folders(served), served.adapter.parts, strict=True))
    adapters = {name: part.state for name, part in parts.items()}
    path = write(served.model, adapters, out.expanduser().absolute(), model_card(found, served.state.digest))
    result = {
        "run": found.name,
        "aggregate": served.state.digest,
        "path": str(path),
        "composition": served.adapter.kind,
        "adapters": [{"path": str(path / name), "share": part.share} for name, part in parts.items()],
    }
    answer(result, [f"Adapter  {path / name}" for name in parts], as_json)


def _folders(served: "Serving") -> list[str]:
    """Where each adapter goes: one into the folder itself, lanes into folders of their own."""
    return [""] if len(served.adapter.parts) == 1 else [f"lane-{lane}" for lane in served.lanes]


def _data_sets(sets: "Collection") -> Iterator[tuple[str, Sequence["Record"]]]:
    """The organisations' held-out records by name, and the domains of the set that nobody owns as validation/DOMAIN."""
    for organisation in sets.organisations:
        yield organisation.name, organisation.dev
    for name in sorted({record.domain for record in sets.validation}):
        yield f"validation/{name or 'all'}", [record for record in sets.validation if record.domain == name]


def _figures(served: "Serving", records: Sequence["Record"], max_length: int, limit: int) -> Json:
    from llm.evaluate import evaluate as measure  # noqa: PLC0415

    figures = {}
    for name, adapter in (("base", None), ("global", served.adapter)):
        found = measure(served.model, adapter, records, max_length, limit or None)
        figures[name] = {"loss": found.loss, "perplexity": found.perplexity, "exact_match": found.exact_match}
    return {"records": min(len(records), limit or len(records)), **figures}


def _table(result: Json) -> Table:
    table = Table(title=f"Run {result['run']}: base → what is served", title_justify="left")
    for heading in ("data set", "records", "loss", "perplexity", "exact match"):
        table.add_column(heading, justify="left" if heading == "data set" else "right")
    for name, figures in result["data_sets"].items():
        pairs = [(figures["base"][what], figures["global"][what]) for what in ("loss", "perplexity", "exact_match")]
        table.add_row(name, str(figures["records"]), *(f"{base:.3g} → {final:.3g}" for base, final in pairs))
    return table
