"""A deployment on one machine: a coordinator behind nginx, a node and a signer for each organisation, and a chain.

As root every node and every signer gets a user of its own, as on machines of their own; otherwise all share one.
"""

import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from chain.devnet.anvil import binary
from console.backends.children import flower_environment, free_port, script
from console.backends.proxy import own_certificate
from core import keys
from core.canonical import Address
from core.storage.events import EventLog
from core.storage.run_folder import RunFolder
from core.storage.state_folder import State
from tests.commands import PATIENCE_SECONDS, World, make_base, make_data

MEMBERS = ("coding", "financial", "medical")
CHAIN_ID = 31337
ROOT = Path(__file__).parents[2]
PRIVILEGED = os.getuid() == 0


@dataclass(frozen=True)
class Deployment:
    """Folders, ports and addresses of what runs."""

    folder: Path
    world: World
    port: int
    control: int
    chain: str
    contract: Address
    python: Path

    def node(self, name: str) -> Path:
        """The folder of an organisation's node."""
        return self.folder / f"node-{name}"

    def signer(self, name: str) -> Path:
        """The folder of its signer."""
        return self.folder / f"signer-{name}"

    @property
    def certificate(self) -> Path:
        """The CA of the coordinator's certificate, which everybody may have."""
        return self.folder / "public" / "link" / "certificate.pem"

    @property
    def app(self) -> Path:
        """This version's app, as the coordinator submits it."""
        return self.folder / "coordinator" / "state" / "app"

    def flwr(self, *arguments: object, home: Path | None = None) -> "subprocess.CompletedProcess[str]":
        """Flower's command line on the coordinator's machine, or with another home."""
        environment = flower_environment(home or self.folder / "coordinator" / "state" / "flower")
        command = [*script("flwr"), *map(str, arguments)]
        return subprocess.run(
            command, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=120
        )

    def start(self, app: Path, run: str, **changes: object) -> None:
        """Submit an app as the coordinator does."""
        settings = {
            "run": run, "state": str(self.world.state), "base": str(self.folder / "base-of-the-coordinator"),
            "quantisation": "none", "rounds": 2, "organisations": 3, "quorum": 3, "participation": "all",
            "local-steps": 2, "batch-size": 2, "max-length": 64, "rank": 4, "alpha": 8.0, "evaluate-limit": 4,
            "chain": self.chain,
            "require-registration": True, "coordinator-key": str(self.folder / "coordinator.key"), **changes,
        }  # fmt: skip
        overrides = self.folder / f"{run}.toml"
        overrides.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items()))
        done = self.flwr("run", app, "federation", "--run-config", overrides)
        assert done.returncode == 0, done.stdout + done.stderr

    def end(self, run: str, times: int = 1) -> dict[str, object]:
        """The last event of a run whose ServerApp has ended so many times."""
        path, log = State(self.world.state).events(run), self.folder / "coordinator.log"

        def ends() -> list[dict[str, Any]]:
            return [event for event in EventLog.read(path)[0] if event["event"] in ("finished", "failed")]

        until(lambda: len(ends()) >= times, log, 4)
        return ends()[-1]

    def log(self, part: str) -> str:
        """What a part has printed."""
        return (self.folder / f"{part}.log").read_text()

    def run(self, name: str) -> RunFolder:
        """A run's folder at the coordinator."""
        return State(self.world.state).existing(name)

    def workers(self, name: str) -> list[psutil.Process]:
        """The workers of an organisation's node that live."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):  # it has ended meanwhile
                line = process.cmdline()
                if "client_app.worker" in line and str(self.node(name)) in line:
                    found.append(process)
        return found

    def as_user(self, name: str | None, command: list[str]) -> "subprocess.CompletedProcess[str]":
        """Run a command as a user of the machine."""
        return subprocess.run(command, **_identity(name), capture_output=True, text=True, check=False, timeout=120)


def users() -> dict[str, str | None]:
    """A user for every node and every signer, by the names of their folders; None is this process's."""
    if not PRIVILEGED:
        return dict.fromkeys(_parts())
    # Every Linux has users for services that are not installed: none of them may read what another owns.
    names = sorted(entry.pw_name for entry in pwd.getpwall() if 0 < entry.pw_uid < 100)
    assert len(names) >= len(_parts()), names
    return dict(zip(_parts(), names, strict=False))


def _parts() -> list[str]:
    return [f"{kind}-{name}" for kind in ("node", "signer") for name in MEMBERS]


def deployed(folder: Path) -> Iterator[Deployment]:
    """Start everything in a folder that every user may enter, and end it afterwards."""
    with ExitStack() as stack:
        python = _interpreter(folder)
        base = make_base(folder / "base")
        shutil.copytree(base, folder / "base-of-the-coordinator")
        for path in (base, *base.iterdir()):
            path.chmod(0o755)
        world = World(base, make_data(folder / "data", MEMBERS), folder / "state")
        key = keys.create(folder / "coordinator.key")
        chain = stack.enter_context(_anvil(folder, key))
        paid = ("--chain", chain, "--key", folder / "coordinator.key")
        contract = Address(world.command("chain deploy", *paid).json["addresses"]["PublicLedger"])
        found = Deployment(folder, world, free_port(), free_port(), chain, contract, python)
        own_certificate(folder / "public")
        _write_coordinator(found)
        owners = users()
        for name in MEMBERS:
            _write_signer(found, name, owners[f"node-{name}"])
            _write_node(found, name)
            _register(found, name)
        for home, owner in owners.items():
            _hand_over(folder / home, owner)
        stack.enter_context(part(found, "coordinator", folder / "coordinator", None))
        for name in MEMBERS:
            stack.enter_context(part(found, "signer", found.signer(name), owners[f"signer-{name}"]))
        for name in MEMBERS:
            until((found.signer(name) / "signer.sock").exists, folder / f"signer-{name}.log")
            # A SuperNode ends when its key is not known yet.
            until(lambda name=name: f"Node {name}: registered" in found.log("coordinator"), folder / "coordinator.log")
            stack.enter_context(part(found, "node", found.node(name), owners[f"node-{name}"]))
        for name in MEMBERS:
            until(lambda name=name: "worker ready" in found.log(f"node-{name}"), folder / f"node-{name}.log", 2)
        yield found


def _interpreter(folder: Path) -> Path:
    """An interpreter that every user can run: this one, or the system's of its version with this one's packages."""
    own, other = Path(sys.executable), Path(f"/usr/bin/python3.{sys.version_info.minor}")
    if not PRIVILEGED or _runs(own):
        return own
    if not other.exists():
        pytest.skip(f"{own} lies where no other user can run it, and there is no {other}")
    environment = folder / "environment"
    subprocess.run([other, "-m", "venv", "--without-pip", environment], check=True)
    paths = "".join(f"{path}\n" for path in (ROOT, sysconfig.get_path("purelib")))
    next(environment.glob("lib/python*/site-packages")).joinpath("all.pth").write_text(paths)
    for name in ("foedus", "flower-supernode"):
        shutil.copy(own.parent / name, environment / "bin")
    return environment / "bin" / "python"


def _runs(python: Path) -> bool:
    """Whether another user can run an interpreter."""
    try:
        return not subprocess.run([python, "-c", "import console.cli"], **_identity("nobody"), check=False).returncode
    except PermissionError:
        return False


def _identity(name: str | None) -> dict[str, Any]:
    """What a process is started with to be another user's."""
    if name is None or not PRIVILEGED:
        return {}
    entry = pwd.getpwnam(name)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


@contextmanager
def _anvil(folder: Path, coordinator: keys.Key) -> Iterator[str]:
    """A chain that is nobody's of these, with funds for the coordinator: its URL."""
    port = free_port()
    command = [str(binary()), "--port", str(port), "--chain-id", str(CHAIN_ID), "--accounts", "1", "--silent"]
    process, url = subprocess.Popen(command, stdin=subprocess.DEVNULL), f"http://127.0.0.1:{port}"
    try:
        until(lambda: _listens(port), folder)
        asked = {"jsonrpc": "2.0", "id": 1, "method": "anvil_setBalance", "params": [coordinator.address, hex(10**21)]}
        assert "error" not in httpx.post(url, json=asked).json()
        yield url
    finally:
        process.terminate()
        process.wait(timeout=60)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _write_coordinator(found: Deployment) -> None:
    home = found.folder / "coordinator"
    (home / "nodes").mkdir(parents=True)
    (home / "coordinator.toml").write_text(
        f'certificate = "{found.certificate}"\nprivate-key = "{found.certificate.with_name("key.pem")}"\n'
        f'listen = "127.0.0.1:{found.port}"\ncontrol-port = {found.control}\n'
    )


def _write_signer(found: Deployment, name: str, user_of_node: str | None) -> None:
    home = found.signer(name)
    home.mkdir()
    keys.create(home / "key")
    users = f'users = ["{user_of_node}"]\n' if user_of_node else ""
    coordinator = keys.read(found.folder / "coordinator.key").address
    (home / "signer.toml").write_text(
        f'coordinator = "{coordinator}"\nchain-id = {CHAIN_ID}\ncontract = "{found.contract}"\n{users}'
    )


def _write_node(found: Deployment, name: str) -> None:
    home = found.node(name)
    (home / "data").mkdir(parents=True)
    shutil.copy(found.world.data / f"{name}.jsonl", home / "data")
    shutil.copy(found.certificate, home / "ca.pem")
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-f", home / "node"], check=True)
    shutil.copy(home / "node.pub", found.folder / "coordinator" / "nodes" / f"{name}.pub")
    coordinator = keys.read(found.folder / "coordinator.key").address
    (home / "node.toml").write_text(
        f'organisation = "{name}"\nsuperlink = "localhost:{found.port}"\nnode-key = "node"\ndata = "data"\n'
        f'root-certificates = "ca.pem"\nbase = "{found.world.base}"\nchain-url = "{found.chain}"\n'
        f'signer = "{found.signer(name)}/signer.sock"\n'
        f'pin-coordinator = "{coordinator}"\npin-contract = "{found.contract}"\n'
    )


def _register(found: Deployment, name: str) -> None:
    """Register an organisation with the contract, by its own request, with its node's key."""
    request, place = found.folder / f"{name}.json", ("--chain", found.chain, "--address", found.contract)
    own = ("--key", found.signer(name) / "key", "--node-key", found.node(name) / "node.pub", "--out", request)
    assert found.world.command("members request", *own, *place).json
    approved = found.world.command("members approve", request, "--key", found.folder / "coordinator.key", *place)
    assert approved.json["registered"]


def _hand_over(home: Path, owner: str | None) -> None:
    """Give a folder to a user; others may enter it, as a node must to reach the socket of its signer."""
    home.chmod(0o755)
    if owner and PRIVILEGED:
        entry = pwd.getpwnam(owner)
        for path in (home, *home.rglob("*")):
            os.chown(path, entry.pw_uid, entry.pw_gid)


@contextmanager
def part(found: Deployment, command: str, home: Path, user: str | None) -> "Iterator[subprocess.Popen[bytes]]":
    """A command in the foreground of a process of its own, which is ended at the end."""
    own: Mapping[str, str] = {**os.environ, "HOME": str(home)} if user else os.environ
    python = found.python if user else Path(sys.executable)
    with (found.folder / f"{home.name}.log").open("wb") as log:
        process = subprocess.Popen(
            [python, python.parent / "foedus", command, home],
            **_identity(user), env=own, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=60)


def until(holds: Callable[[], bool], log: Path, times: int = 1) -> None:
    """Wait for something that a part does; its log says why it did not come."""
    deadline = time.monotonic() + times * PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if holds():
            return
        time.sleep(0.2)
    pytest.fail(f"it did not come: {log.read_text()[-3000:] if log.is_file() else log}")
