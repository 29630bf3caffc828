"""`foedus dossier`: the papers of a run for a data-protection officer, a regulator or a board, signed."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

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
from console.settings import saved
from console.views.progress import working
from console.views.sent import read_log, totals
from console.views.tables import answer
from core.canonical import Address
from core.genesis import Genesis
from core.model_signature import FileKey, file_key, signing_key_path
from core.storage.new_folder import appearing

app = command_app()

_AUDITED = {None: "No audit was made", True: "The audit holds", False: "The audit does NOT hold: see the page"}


@app.command(epilog='Example: foedus dossier --out dossier --purpose "Answers about our products"')
def dossier(  # noqa: PLR0913, PLR0917 - one parameter an option
    out: Annotated[Path, typer.Option(help="The folder to make.")],
    run: RunArgument = "",
    purpose: Annotated[str, typer.Option(metavar="TEXT", help="What the model is for, in your words.")] = "",
    audit: Annotated[bool, typer.Option("--audit/--no-audit", help="Verify the run now, and tell the outcome.")] = True,
    sent: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FILE", help="An organisation's own log of what left it.")
    ] = None,
    base: BaseOption = "",
    base_key: BaseKeyOption = None,
    signing_key: SigningKeyOption = None,
    key: ReaderKeyOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write what is known of a run for those who are responsible for it: one HTML page and its JSON, both signed."""
    from chain.audit.run import verify_on_chain  # noqa: PLC0415 - a second
    from console.papers import dossier as papers  # noqa: PLC0415 - a second
    from console.papers.base_signature import base_signature  # noqa: PLC0415
    from console.papers.origin import Origin  # noqa: PLC0415

    folder, signer = state_of(state), file_key(signing_key_path(signing_key))
    found = readable_run(folder, run, key)
    settings, report = saved(folder, found.name), None
    logs = logs_of(sent or [], found.genesis)
    signature = base_signature(base or found.genesis.base.name, found.genesis.base.digest, base_key)
    if audit:
        with working(f"verifying run {found.name}"):
            report = verify_on_chain(found, settings.chain, folder.folder, private=settings.private)
    with working("reading what left each site"):
        origin = Origin(folder, found, base_signature=signature)
        content = papers.dossier(origin, purpose, settings.chain, report, logs)
    out = out.expanduser().absolute()
    write_signed(out, content, papers.render(content), signer)
    ok = report.ok if report else None
    result = {"run": found.name, "path": str(out), "ok": ok, "signer": signer.name}
    lines = [f"Dossier  {out / 'dossier.html'}", f"Audit    {_AUDITED[ok]}", f"Signed   by key {signer.name}"]
    answer(result, lines, as_json=as_json)


def logs_of(given: Sequence[str], genesis: Genesis) -> dict[Address, dict[str, Any]]:
    """What left each site of which a log was given, by its organisation's address; raises UsageError."""
    named = [text.partition("=") for text in given]
    return {genesis.named(name).address: totals(read_log(Path(file)), genesis.run) for name, _, file in named}


def write_signed(out: Path, content: dict[str, Any], page: str, signer: FileKey) -> None:
    """Write a dossier's data, its page and their signature, which appear together or not at all."""
    with appearing(out) as partial:
        partial.mkdir()
        (partial / "dossier.json").write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")
        (partial / "dossier.html").write_text(page, encoding="utf-8")
        signer.sign_folder(partial)
