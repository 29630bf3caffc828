"""`foedus export`: the adapter of a run in PEFT's format, with a model card."""

from pathlib import Path
from typing import Annotated

import typer

from console.options import JsonOption, ReaderKeyOption, RunArgument, StateOption, command_app, readable_run, state_of
from console.views.card import model_card
from console.views.progress import working
from console.views.tables import answer

app = command_app()


@app.command(epilog="Example: foedus export --out ./adapter")
def export(
    out: Annotated[Path, typer.Option(help="The folder to make.")],
    run: RunArgument = "",
    key: ReaderKeyOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the adapter as PEFT and vLLM load it, with a model card; lanes that are not summed, each in a folder."""
    from llm.export import export as write  # noqa: PLC0415 - torch: seconds that help need not wait
    from llm.served import serving  # noqa: PLC0415

    found = readable_run(state_of(state), run, key)
    with working(f"loading the base {found.genesis.base.name}"):
        served = serving(found)
    parts = served.adapter.parts
    folders = [""] if len(parts) == 1 else [f"lane-{lane}" for lane in served.lanes]
    adapters = {folder: part.state for folder, part in zip(folders, parts, strict=True)}
    path = write(served.model, adapters, out.expanduser().absolute(), model_card(found, served.state.digest))
    shares = [{"path": str(path / f), "share": part.share} for f, part in zip(folders, parts, strict=True)]
    result = {
        "run": found.name,
        "aggregate": served.state.digest,
        "path": str(path),
        "composition": served.adapter.kind,
        "adapters": shares,
    }
    answer(result, [f"Adapter  {share['path']}" for share in shares], as_json=as_json)
