"""`foedus export`: the adapter of a run in PEFT's format, or merged into its base, with a model card."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
from console.views.card import model_card
from console.views.progress import working
from console.views.tables import answer

if TYPE_CHECKING:
    from llm.served import Serving

app = command_app()


@app.command(epilog="Example: foedus export --out ./adapter")
def export(  # noqa: PLR0913, PLR0917 - one parameter an option
    out: Annotated[Path, typer.Option(help="The folder to make.")],
    run: RunArgument = "",
    merge: Annotated[bool, typer.Option("--merge", help="Merge the adapter into the base's weights.")] = False,
    gguf: Annotated[bool, typer.Option("--gguf", help="Merge, and convert with llama.cpp's converter.")] = False,
    base: BaseOption = "",
    key: ReaderKeyOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the adapter as PEFT and vLLM load it, with a model card; lanes that are not summed, each in a folder."""
    from llm.export import export as write  # noqa: PLC0415 - torch: seconds that help need not wait
    from llm.merge import converter  # noqa: PLC0415
    from llm.served import serving  # noqa: PLC0415

    script = converter() if gguf else None  # asked for before anything is loaded
    found = readable_run(state_of(state), run, key)
    with working(f"loading the base {found.genesis.base.name}"):
        served = serving(found, base)
    out, card = out.expanduser().absolute(), model_card(found, served.state.digest)
    if merge or gguf:
        made = _merged(served, out, card, script)
    else:
        parts = served.adapter.parts
        named = dict(zip([f"lane-{lane}" for lane in served.lanes] if parts[1:] else [""], parts, strict=True))
        write(served.model, {folder: part.state for folder, part in named.items()}, out, card)
        made = {"adapters": [{"path": str(out / folder), "share": part.share} for folder, part in named.items()]}
    result = {
        "run": found.name,
        "aggregate": served.state.digest,
        "path": str(out),
        "composition": served.adapter.kind,
        **made,
    }
    lines = [f"Adapter  {adapter['path']}" for adapter in made.get("adapters", [])]
    if merge or gguf:
        lines = [f"Merged   {out}, {made['divergence']:.2g} nats a token from the adapter beside its base"]
    answer(result, [*lines, *([f"GGUF     {made['gguf']}"] if gguf else [])], as_json=as_json)


def _merged(served: "Serving", out: Path, card: str, script: Path | None) -> dict[str, Any]:
    """Write the base with the adapter merged into it, as GGUF too where there is a `script`; how far it diverges."""
    from llm.merge import merge, to_gguf  # noqa: PLC0415 - torch

    adapter = served.one_adapter("--merge")
    with working("merging the adapter into the base"):
        divergence = merge(served.model, adapter, out, card)
    return {"divergence": divergence} | ({"gguf": str(to_gguf(script, out))} if script else {})
