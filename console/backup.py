"""`foedus backup`: a copy of a folder while it is used; `foedus restore` puts it back."""

from pathlib import Path
from typing import Annotated

import typer

from console.options import JsonOption, StateOption, command_app, state_of, writable_file
from console.views.tables import answer
from core.storage.backup import back_up
from core.storage.state_folder import State

app = command_app()


@app.command(epilog="Example: foedus backup /etc/foedus/coordinator --out coordinator.tar.gz")
def backup(
    out: Annotated[Path, typer.Option(help="The file to write.")],
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Folder of a coordinator, node or signer [the state].")
    ] = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy a state, coordinator, node or signer folder while it is used.

    Its keys are in the file: keep it as you keep them.
    """
    out, folder = writable_file(out), folder.expanduser().absolute() if folder else state_of(state).folder
    copied = back_up(folder, out)
    elsewhere = State(folder if (folder / "runs").exists() else folder / "state").stores()
    lines = [
        f"Copied   {copied.files} files, {copied.size:,} bytes of {folder}",
        *(f"Missing  the artifacts in {store}: copy these, too" for store in elsewhere),
        f"Written  {out}, which holds the folder's keys: keep it as you keep them",
    ]
    result = {"path": str(out), "files": copied.files, "bytes": copied.size, "elsewhere": elsewhere}
    answer(result, lines, as_json=as_json)
