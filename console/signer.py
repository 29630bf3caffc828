"""`foedus signer`: the process that holds an organisation's key and signs for one coordinator, chain and contract."""

from pathlib import Path
from typing import Annotated

import typer

from client_app.signer import SignerServer, held_key
from console.options import LogFileOption, LogFormatOption, command_app
from console.views.logs import LogFormat, start_log
from console.views.tables import screen, show
from core.deployment import SignerSettings

app = command_app()

FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="Folder with signer.toml.")]


@app.command(epilog="Example: foedus signer /etc/foedus/signer")
def signer(
    folder: FolderArgument, log_format: LogFormatOption = LogFormat.text, log_file: LogFileOption = None
) -> None:
    """Hold an organisation's key and sign for its node, over a Unix socket, until it is ended."""
    start_log(log_format, log_file, part="signer")
    settings = SignerSettings.read(folder)
    key = held_key(settings)
    with SignerServer(settings, key) as server:
        show(f"Signer of {key.address} on {settings.socket}", on=screen(stderr=True))
        server.serve_forever()
