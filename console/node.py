"""`foedus node`: an organisation's part of a deployment, a SuperNode and the resident worker behind it.

The SuperNode speaks with the coordinator and runs no app. The worker answers with the installed ClientApp, and refuses
the messages of a run that came with another app.
"""

import os
import secrets
import sys
import time
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from client_app.remote_key import RemoteKey
from console.backends.children import Children, Kept, flower_environment, free_port
from console.monitoring.node import NodeMonitor
from console.monitoring.server import monitored
from console.options import LogFileOption, LogFormatOption, command_app
from console.views.logs import LogFormat, know, start_log
from console.views.progress import working
from console.views.tables import screen, show
from core import keys
from core.canonical import Address
from core.deployment import NodeSettings
from core.errors import RunError, UsageError

app = command_app()

FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="Folder with node.toml.")]
_POLL_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 60.0
_MOST_FAILURES = 5
"""Starts in a row that come to nothing, of a SuperNode that has served before; one that never has ends at once."""


@app.command(epilog="Example: foedus node /etc/foedus/node")
def node(folder: FolderArgument, log_format: LogFormatOption = LogFormat.text, log_file: LogFileOption = None) -> None:
    """Run an organisation's node of a deployment, until it is ended: a SuperNode, and the worker behind it."""
    start_log(log_format, log_file, part="node")
    settings = NodeSettings.read(folder)
    know(organisation=settings.organisation)
    address = _address(settings)
    with Children() as children:
        show(f"Node of {settings.organisation}, {address}, for {settings.superlink}", on=screen(stderr=True))
        _watch(settings, children)


def _address(settings: NodeSettings) -> Address:
    """The organisation's address; raises UsageError when its key cannot be used, before anything is started."""
    if settings.signer:
        return RemoteKey(settings.signer).address
    assert settings.key_file is not None  # noqa: S101 - one of the two is given
    return keys.read(settings.key_file, settings.passphrase).address


def _watch(settings: NodeSettings, children: Children) -> NoReturn:
    """Keep a worker beside the SuperNode; raises RunError when the SuperNode ends before it was of use."""
    from client_app.learning import check_data  # noqa: PLC0415 - torch: seconds that help need not wait

    port, environment = free_port(), flower_environment(settings.state / "flower")
    serving = supernode_command(settings, port)
    with working("reading the data"):  # before anybody is told of them
        check_data(settings.node_config())
    supernode, failures = Kept(children, serving, environment), _MOST_FAILURES
    # -P: the current folder must not supply modules.
    command: list[str | Path] = [sys.executable, "-P", "-m", "client_app.worker", settings.folder, f"127.0.0.1:{port}"]
    worker, pause = Kept(children, command, environment), 1.0
    with monitored(settings.metrics, NodeMonitor(settings, supernode, worker)):
        while True:
            time.sleep(_POLL_SECONDS)
            if not supernode.alive:
                failures = 0 if supernode.lived > _LONGEST_PAUSE_SECONDS else failures + 1
                if failures > _MOST_FAILURES:
                    break
                # Whoever comes back within 50 s is taken for the one that has left, and refused.
                _say_again("SuperNode", supernode)
                time.sleep(_LONGEST_PAUSE_SECONDS)
                supernode.start()
            if not worker.alive:
                # A worker that dies at once would otherwise take a core for its imports.
                pause = 1.0 if worker.lived > _LONGEST_PAUSE_SECONDS else min(2 * pause, _LONGEST_PAUSE_SECONDS)
                _say_again("worker", worker)
                time.sleep(pause)
                worker.start()
    raise RunError(
        f"the SuperNode ended with status {supernode.process.returncode}: its log above says why. Unregistered node "
        "keys, a restart within a minute, and a clock that is off by five look alike there"
    )


def _say_again(what: str, ended: Kept) -> None:
    show(f"The {what} ended with status {ended.process.returncode}: starting another", on=screen(stderr=True))


def supernode_command(settings: NodeSettings, port: int) -> list[str | Path]:
    """The command of the SuperNode, which gives its tasks to nobody but the worker."""
    settings.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    secret = settings.worker_secret
    secret.unlink(missing_ok=True)
    with os.fdopen(os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secrets.token_bytes(32))
    command: list[str | Path] = [sys.executable, "-P", "-m", "client_app.supernode", "--superlink", settings.superlink]
    command += ["--isolation", "process", "--superexec-auth-secret-file", secret, "--port", str(port)]
    if settings.root_certificates is None:
        return [*command, "--insecure"]
    if not settings.root_certificates.is_file():
        raise UsageError(f"root-certificates: expected a file, got {settings.root_certificates}")
    command += ["--root-certificates", settings.root_certificates]
    return [*command, "--auth-supernode-private-key", settings.node_key] if settings.node_key else command
