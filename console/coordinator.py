"""`foedus coordinator`: a deployment's SuperLink on the loopback, with nginx in front of it.

What starts runs and admits nodes stays on this machine. Nodes reach the Fleet API alone, and are known by the public
keys in the folder `nodes`: a file that is put there is registered at once.
"""

import json
import math
import os
import re
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from console.backends.app_folder import stage
from console.backends.children import Children, flower_environment, script
from console.backends.deployment import CONNECTION, answers
from console.backends.proxy import Nginx, own_certificate, write_configuration
from console.monitoring.coordinator import CoordinatorMonitor
from console.monitoring.server import monitored
from console.options import LogFileOption, LogFormatOption, command_app
from console.views.logs import LogFormat, start_log
from console.views.tables import screen, show
from core.deployment import CoordinatorSettings
from core.errors import RunError, UsageError

app = command_app()

FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="Folder with coordinator.toml.")]
_POLL_SECONDS = 1.0
_AGAIN_SECONDS = 60.0
"""Until a node that the SuperLink did not register is tried again."""
_START_SECONDS = 120.0
_STAYS_SECONDS = 10.0
"""An nginx that ends by itself sooner would again: its port is taken, or its certificate is none."""


@app.command(epilog="Example: foedus coordinator /etc/foedus/coordinator")
def coordinator(
    folder: FolderArgument, log_format: LogFormatOption = LogFormat.text, log_file: LogFileOption = None
) -> None:
    """Run a deployment's SuperLink behind nginx, until it is ended; `foedus run --federation` starts runs there."""
    start_log(log_format, log_file, part="coordinator")
    settings = CoordinatorSettings.read(folder)
    if not shutil.which(settings.nginx):
        raise UsageError(f"nginx: expected a program, got {settings.nginx!r}: install nginx, or name it in {folder}")
    settings.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    with Children() as children:
        _watch(settings, children)


def _watch(settings: CoordinatorSettings, children: Children) -> NoReturn:
    """Keep SuperLink and nginx, and register the nodes; raises RunError when the SuperLink ends, or nginx at once."""
    write_configuration(settings)  # which says what is missing before anything is started
    certificate, key = own_certificate(settings.state)
    app_folder = settings.state / "app"
    shutil.rmtree(app_folder, ignore_errors=True)
    stage(app_folder)  # this version's app, which the nodes compare with their own; a run is submitted once all answers
    environment = flower_environment(flower_home(settings, certificate))
    superlink = children.start(superlink_command(settings, certificate, key), environment)
    _wait_until_healthy(settings, certificate, superlink)
    nginx = Nginx(children, settings)
    show(f"Coordinator on {settings.listen}, nodes by {settings.nodes}/*.pub", on=screen(stderr=True))
    show(f"Start a run on this machine: foedus run --federation {settings.folder}", on=screen(stderr=True))
    due: dict[tuple[Path, int], float] = {}
    with monitored(settings.metrics, CoordinatorMonitor(settings, superlink, certificate)):
        while superlink.poll() is None:
            if not nginx.alive:
                if nginx.process.returncode > 0 and nginx.lived < _STAYS_SECONDS:
                    break
                show(f"nginx ended with status {nginx.process.returncode}: starting another", on=screen(stderr=True))
                nginx.start()
            elif told := nginx.follow_certificate():
                show(told, on=screen(stderr=True))
            register_due(settings.nodes, environment, due)
            time.sleep(_POLL_SECONDS)
    name, ended = ("the SuperLink", superlink) if superlink.poll() is not None else ("nginx", nginx.process)
    raise RunError(f"{name} ended with status {ended.returncode}: its log above says why")


def flower_home(settings: CoordinatorSettings, certificate: Path) -> Path:
    """The folder of Flower's command line, with the connection to this SuperLink."""
    home = settings.state / "flower"
    home.mkdir(exist_ok=True, mode=0o700)
    connection = {"address": f"127.0.0.1:{settings.control_port}", "root-certificates": str(certificate)}
    lines = [f"{name} = {json.dumps(value)}\n" for name, value in connection.items()]
    default = f"[superlink]\ndefault = {json.dumps(CONNECTION)}\n\n[superlink.{CONNECTION}]\n"
    (home / "config.toml").write_text(default + "".join(lines), encoding="utf-8")
    return home


def superlink_command(settings: CoordinatorSettings, certificate: Path, key: Path) -> list[str | Path]:
    """The command of the SuperLink, which listens on the loopback and knows its nodes' keys."""
    options = ["--host", "127.0.0.1", "--port", str(settings.control_port), "--enable-supernode-auth"]
    # With a database the SuperLink knows its nodes again after a restart.
    options += ["--database", str(settings.state / "superlink.sqlite"), "--disable-runtime-dependency-installation"]
    certificates: list[str | Path] = [
        "--ssl-ca-certfile",
        certificate,
        "--ssl-certfile",
        certificate,
        "--ssl-keyfile",
        key,
    ]
    return [*script("flower-superlink"), *options, *certificates]


def _wait_until_healthy(settings: CoordinatorSettings, certificate: Path, superlink: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _START_SECONDS
    while superlink.poll() is None and time.monotonic() < deadline:
        if answers(settings.control_port, certificate):
            return
        time.sleep(_POLL_SECONDS / 5)
    raise RunError(f"the SuperLink did not start within {_START_SECONDS:.0f} s: its log above says why")


def public_keys(folder: Path) -> set[tuple[Path, int]]:
    """The files NAME.pub of a folder, and when each was written last: one that was half there comes again."""
    found = set()
    for path in folder.glob("*.pub"):
        with suppress(OSError):  # it has gone
            found.add((path, path.stat().st_mtime_ns))
    return found


def register_due(nodes: Path, environment: dict[str, str], due: dict[tuple[Path, int], float]) -> None:
    """Register the nodes whose keys lie in the folder; `due` says when each is to be tried again, and is kept up."""
    for key_file in sorted(public_keys(nodes)):
        if time.monotonic() >= due.get(key_file, 0.0):
            known = register(key_file[0], environment)
            due[key_file] = math.inf if known else time.monotonic() + _AGAIN_SECONDS


def register(path: Path, environment: dict[str, str]) -> bool:
    """Admit the node with this public key, and say whether it is: one that is admitted already stays so."""
    command = [*script("flwr"), "supernode", "register", str(path), CONNECTION, "--format", "json"]
    done = subprocess.run(  # noqa: S603 - a command of ours
        [*command, "--name", path.stem], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    said = done.stdout + done.stderr
    # In JSON Flower exits with 0 whatever became of it.
    new, before = '"success": true' in said, "already in use" in said
    how = "registered" if new else " ".join(said.split())
    if number := re.search(r'"node-id": "?(\d+)', said):
        how += f" as {number[1]}"  # Flower lists nodes by number alone
    show(f"Node {path.stem}: {'registered before' if before else how}", on=screen(stderr=True))
    return new or before
