"""`foedus dossier`: the papers of a run for a data-protection officer, a regulator or a board, signed."""

import json
from pathlib import Path
from typing import Annotated

import typer

from console.options import (
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
from console.views.tables import answer
from core.model_signature import file_key, signing_key_path
from core.storage.new_folder import appearing

app = command_app()


@app.command(epilog='Example: foedus dossier --out dossier --purpose "Answers about our products"')
def dossier(  # noqa: PLR0913, PLR0917 - one parameter an option
    out: Annotated[Path, typer.Option(help="The folder to make.")],
    run: RunArgument = "",
    purpose: Annotated[str, typer.Option(metavar="TEXT", help="What the model is for, in your words.")] = "",
    audit: Annotated[bool, typer.Option("--audit/--no-audit", help="Verify the run now, and tell the outcome.")] = True,
    signing_key: SigningKeyOption = None,
    key: ReaderKeyOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write what is known of a run for those who are responsible for it: one HTML page and its JSON, both signed."""
    from chain.audit.run import verify_on_chain  # noqa: PLC0415 - a second
    from console.papers import dossier as papers  # noqa: PLC0415 - a second
    from console.papers.origin import Origin  # noqa: PLC0415

    folder, signer = state_of(state), file_key(signing_key_path(signing_key))
    found = readable_run(folder, run, key)
    settings, report = saved(folder, found.name), None
    if audit:
        with working(f"verifying run {found.name}"):
            report = verify_on_chain(found, settings.chain, folder.folder, private=settings.private)
    with working("reading what left each site"):
        content = papers.dossier(Origin(folder, found), purpose, settings.chain, report)
    out = out.expanduser().absolute()
    with appearing(out) as partial:
        partial.mkdir()
        (partial / "dossier.json").write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")
        (partial / "dossier.html").write_text(papers.render(content), encoding="utf-8")
        signer.sign_folder(partial)
    ok = report.ok if report else None
    result = {"run": found.name, "path": str(out), "ok": ok, "signer": signer.name}
    told = {None: "No audit was made", True: "The audit holds", False: "The audit does NOT hold: see the page"}
    lines = [f"Dossier  {out / 'dossier.html'}", f"Audit    {told[ok]}", f"Signed   by key {signer.name}"]
    answer(result, lines, as_json=as_json)
