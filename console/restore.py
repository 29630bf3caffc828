"""`foedus restore`: what `foedus backup` has copied, in a folder again."""

from pathlib import Path
from typing import Annotated

import typer

from console.options import JsonOption, command_app
from console.views.tables import answer
from core.storage.backup import restore as put_back

app = command_app()


@app.command(epilog="Example: foedus restore coordinator.tar.gz --out /etc/foedus/coordinator")
def restore(
    archive: Annotated[Path, typer.Argument(metavar="FILE", help="What `foedus backup` has written.")],
    out: Annotated[Path, typer.Option(help="The folder to make.")],
    as_json: JsonOption = False,
) -> None:
    """Put a backup back, and check every byte of it."""
    out = out.expanduser().absolute()
    copied = put_back(archive.expanduser(), out)
    lines = [
        f"Restored {copied.files} files, {copied.size:,} bytes into {out}",
        "Next: repeat each erasure that is newer than the backup, which holds what it took away; then foedus verify",
    ]
    answer({"path": str(out), "files": copied.files, "bytes": copied.size}, lines, as_json=as_json)
