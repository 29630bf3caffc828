"""`foedus export`: the adapter of a run in PEFT's format, or merged into its base, with its papers, signed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from console.options import (
    BaseKeyOption,
    BaseOption,
    JsonOption,
    ReaderKeyOption,
    RunArgument,
    SigningKeyOption,
    StateOption,
    command_app,
    readable_run,
    state_of,
)
from console.papers.base_signature import base_signature
from console.papers.folder import write_papers
from console.papers.origin import Origin
from console.views.progress import working
from console.views.tables import answer
from core.model_signature import FileKey, file_key, signing_key_path

if TYPE_CHECKING:
    from llm.served import Serving

app = command_app()


@app.command(epilog="Example: foedus export --out ./adapter")
def export(  # noqa: PLR0913, PLR0917 - one parameter an option
    out: Annotated[Path, typer.Option(help="The folder to make.")],
    run: RunArgument = "",
    merge: Annotated[bool, typer.Option("--merge", help="Merge the adapter into the base's weights.")] = False,
    gguf: Annotated[bool, typer.Option("--gguf", help="Merge, and convert with llama.cpp's converter.")] = False,
    push: Annotated[str, typer.Option(metavar="OWNER/NAME", help="Upload it to this repository of a hub.")] = "",
    public: Annotated[bool, typer.Option("--public", help="Make a repository that all can read [private].")] = False,
    named: Annotated[bool, typer.Option("--names", help="Name organisations [their addresses alone].")] = False,
    licence: Annotated[str, typer.Option(metavar="SPDX", help="The licence that you grant, as Apache-2.0.")] = "",
    signing_key: SigningKeyOption = None,
    base: BaseOption = "",
    base_key: BaseKeyOption = None,
    key: ReaderKeyOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the adapter as PEFT and vLLM load it, with its papers, signed; each lane that is not summed alone."""
    from llm.merge import converter  # noqa: PLC0415 - torch: seconds that help need not wait
    from llm.push import checked_name  # noqa: PLC0415
    from llm.push import push as upload  # noqa: PLC0415
    from llm.served import serving  # noqa: PLC0415

    script = converter() if gguf else None  # asked for before anything is loaded
    repository = checked_name(push) if push else ""
    signer = file_key(signing_key_path(signing_key))
    folder = state_of(state)
    found = readable_run(folder, run, key)
    signature = base_signature(base or found.genesis.base.name, found.genesis.base.digest, base_key)  # before it loads
    with working(f"loading the base {found.genesis.base.name}"):
        served = serving(found, base)
    out = out.expanduser().absolute()
    origin = Origin(folder, found, served.state.digest, named, licence, signature)
    made = merged(served, out, origin, signer, script) if merge or gguf else adapters(served, out, origin, signer)
    if repository:
        with working(f"uploading {out.name} to {repository}"):
            made["url"] = upload(out, repository, private=not public)
    result = {"run": found.name, "aggregate": served.state.digest, "path": str(out), "base_signature": signature}
    result |= {"composition": served.adapter.kind, "signer": signer.name} | made
    answer(result, told(result), as_json=as_json)


def adapters(served: "Serving", out: Path, origin: Origin, signer: FileKey) -> dict[str, Any]:
    """Write the adapter, or one for each lane, with their papers."""
    from core.aggregation import rank_of  # noqa: PLC0415 - NumPy
    from llm.export import export as write  # noqa: PLC0415 - torch

    parts = served.adapter.parts
    named = dict(zip([f"lane-{lane}" for lane in served.lanes] if parts[1:] else [""], parts, strict=True))

    def complete(name: str, folder: Path) -> None:
        write_papers(folder, origin, signer, served.model.family, rank_of(named[name].state))

    write(served.model, {name: part.state for name, part in named.items()}, out, complete)
    return {"adapters": [{"path": str(out / name), "share": part.share} for name, part in named.items()]}


def merged(served: "Serving", out: Path, origin: Origin, signer: FileKey, script: Path | None) -> dict[str, Any]:
    """Write the base with the adapter merged into it, as GGUF too where there is a `script`; how far it diverges."""
    from llm.merge import merge, to_gguf  # noqa: PLC0415 - torch

    adapter = served.one_adapter("--merge")

    def complete(folder: Path) -> None:
        # Before the papers: the signature is over all that is there.
        if script:
            to_gguf(script, folder)
        write_papers(folder, origin, signer, served.model.family)

    with working("merging the adapter into the base"):
        divergence = merge(served.model, adapter, out, complete)
    return {"divergence": divergence} | ({"gguf": str(out / "model.gguf")} if script else {})


def told(result: dict[str, Any]) -> list[str]:
    """The result for people."""
    lines = [f"Adapter  {adapter['path']}" for adapter in result.get("adapters", [])]
    if "divergence" in result:
        nats = f"{result['divergence']:.2g} nats a token"
        lines.append(f"Merged   {result['path']}, {nats} from the adapter beside its base")
    lines += [f"{title:8} {result[name]}" for name, title in (("gguf", "GGUF"), ("url", "Pushed")) if name in result]
    return [*lines, f"Base     {result['base_signature']}", f"Signed   by key {result['signer']}"]
