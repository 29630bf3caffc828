"""`foedus serve`: the web console, and an endpoint that answers as OpenAI's does."""

import json
import os
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from console.options import BaseOption, JsonOption, ReaderKeyOption, StateOption, command_app, state_of
from console.views.tables import screen, show
from core import keys
from core.errors import UsageError
from core.keys import Key

app = command_app()

HOST = "127.0.0.1"
_BACKLOG = 128


@app.command(epilog="Example: foedus serve --token-file ~/.config/foedus/token")
def serve(  # noqa: PLR0913, PLR0917 - one parameter an option
    runs: Annotated[list[str] | None, typer.Argument(metavar="[RUN]...", help="Run ids; all without any.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of 127.0.0.1; 0 is a free one.")] = 8750,
    token_file: Annotated[
        Path | None, typer.Option(help="File of the token that changes need; made if missing. Without it, none can be.")
    ] = None,
    signing_key: Annotated[
        Path | None, typer.Option(help="Key file that signs receipts [~/.config/foedus/serving, made if missing].")
    ] = None,
    proxy: Annotated[
        Path | None, typer.Option(help="proxy.toml of a reverse proxy that knows who asks; nobody else is let in.")
    ] = None,
    base: BaseOption = "",
    key: ReaderKeyOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Serve the web console and an OpenAI-compatible endpoint on 127.0.0.1."""
    folder = state_of(state)
    names = tuple(folder.existing(name).name for name in runs or ())
    signer = server_key(signing_key)
    with listening_on(port) as listening:
        url = f"http://{HOST}:{listening.getsockname()[1]}"
        # Only now: a port that is taken is said at once, and not after seconds of imports.
        from console.web.app import Site, answer_on  # noqa: PLC0415
        from console.web.engine import Engine  # noqa: PLC0415
        from console.web.proxy import Proxy, ProxySettings  # noqa: PLC0415
        from console.web.security import Token  # noqa: PLC0415

        site = Site(
            folder,
            Engine(folder, base, key.expanduser() if key else None),
            signer,
            Token(token_file.expanduser() if token_file else None),
            names,
            Proxy(ProxySettings.read_file(proxy)) if proxy else None,
        )
        announce(site.proxy.origin if site.proxy else url, signer, site.runs(), site.token.file, as_json=as_json)
        answer_on(listening, site)


def server_key(file: Path | None) -> Key:
    """The server's own key, made where there is none."""
    path = (file or Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config", "foedus", "serving")).expanduser()
    return keys.read(path) if path.exists() else keys.create(path)


def listening_on(port: int) -> socket.socket:
    """The socket that listens; raises UsageError for a port that is taken."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise UsageError(f"--port: expected a free port of {HOST}, got {port}: {error.strerror}") from error
    return listening


def announce(url: str, signer: Key, runs: dict[str, float], token: Path | None, *, as_json: bool) -> None:
    """Say where to look, before anybody can."""
    if as_json:
        result = {"url": url, "signer": signer.address, "models": [*runs], "token_file": str(token) if token else None}
        sys.stdout.write(json.dumps(result) + "\n")
        sys.stdout.flush()
        return
    changes = f"need the token in {token}" if token else "are off: --token-file turns them on"
    show(
        f"Console  {url}/", f"Endpoint {url}/v1, models: {', '.join(runs) or 'none yet'}",
        f"Receipts are signed by {signer.address}", f"Changes  {changes}",
        on=screen(),
    )  # fmt: skip
    sys.stdout.flush()
