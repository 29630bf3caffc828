"""A deployment on one machine: a coordinator behind nginx, a node and a signer for each organisation, and a chain.

It is made as an operator makes it: `foedus deploy init`, `foedus join`, `foedus deploy admit`. As root every node and
every signer gets a user of its own, as on machines of their own; otherwise all share one.
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
from core import keys
from core.canonical import Address
from core.storage.events import EventLog
from core.storage.run_folder import RunFolder
from core.storage.state_folder import State
from tests.commands import PATIENCE_SECONDS, World, foedus, make_base, make_data

_NAMES = ("coding", "financial", "medical", "harbour", "kitchen", "law", "museum", "observatory")
MEMBERS = _NAMES[: int(os.environ.get("FOEDUS_ORGANISATIONS", "3"))]
"""Three, unless the environment asks for more, as a long soak does."""
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
    anvil: "Anvil"
    contract: Address
    python: Path
    parts: ExitStack
    """Ends what runs, the newest first."""

    @property
    def chain(self) -> str:
        """The URL of the chain."""
        return self.anvil.url

    def node(self, name: str) -> Path:
        """The folder of an organisation's node."""
        return self.folder / name / "node"

    def signer(self, name: str) -> Path:
        """The folder of its signer."""
        return self.folder / name / "signer"

    def socket(self, name: str) -> Path:
        """Where its signer answers."""
        return self.folder / name / "socket" / "signer.sock"

    @property
    def coordinator(self) -> Path:
        """The coordinator's folder."""
        return self.folder / "coordinator"

    @property
    def certificate(self) -> Path:
        """The CA of the coordinator's certificate, which everybody may have."""
        return self.coordinator / "ca.pem"

    @property
    def app(self) -> Path:
        """This version's app, as the coordinator submits it."""
        return self.coordinator / "state" / "coordinator" / "app"

    def flwr(self, *arguments: object, home: Path | None = None) -> "subprocess.CompletedProcess[str]":
        """Flower's command line on the coordinator's machine, or with another home."""
        environment = flower_environment(home or self.coordinator / "state" / "coordinator" / "flower")
        command = [*script("flwr"), *map(str, arguments)]
        return subprocess.run(
            command, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=120
        )

    def start(self, app: Path, run: str, **changes: object) -> None:
        """Submit an app as the coordinator does."""
        settings = {
            "run": run, "state": str(self.world.state), "base": str(self.folder / "base-of-the-coordinator"),
            "quantisation": "none", "rounds": 2, "organisations": len(MEMBERS), "quorum": 3, "participation": "all",
            "local-steps": 2, "batch-size": 2, "max-length": 64, "rank": 4, "alpha": 8.0, "evaluate-limit": 4,
            "chain": self.chain,
            "require-registration": True, "coordinator-key": str(self.folder / "key" / "own.key"), **changes,
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
        return _processes("client_app.worker", str(self.node(name)))

    def command(self, command: str, home: Path) -> psutil.Process:
        """The process of a command in the foreground."""
        (found,) = _processes(command, str(home))
        return found

    def part_of(self, command: str, home: Path, word: str) -> psutil.Process:
        """A process that such a command has started, by a word of its command line."""
        return next(p for p in self.command(command, home).children() if word in " ".join(p.cmdline()))

    def start_again(self, command: str, home: Path, name: str | None = None) -> None:
        """Start a command in the foreground that was ended, as whatever manages it would."""
        log = f"{command}-{name}" if name else command
        self.parts.enter_context(part(self, command, home, users()[log] if name else None, log))

    def restart(self, name: str) -> None:
        """End an organisation's node and signer, and start them with the key of now."""
        ready = self.log(f"node-{name}").count("worker ready")
        for process in (self.command("node", self.node(name)), self.command("signer", self.signer(name))):
            process.terminate()
            process.wait(timeout=60)
        assert not self.socket(name).exists()
        self.start_again("signer", self.signer(name), name)
        until(self.socket(name).exists, self.folder / f"signer-{name}.log")
        self.start_again("node", self.node(name), name)
        self.wait_for_worker(name, ready + 1)

    def wait_for_worker(self, name: str, times: int) -> None:
        """Until an organisation's worker is ready, for the time given."""
        log = self.folder / f"node-{name}.log"
        until(lambda: self.log(f"node-{name}").count("worker ready") >= times, log, 2)

    def as_user(self, name: str | None, command: list[str]) -> "subprocess.CompletedProcess[str]":
        """Run a command as a user of the machine."""
        return subprocess.run(command, **_identity(name), capture_output=True, text=True, check=False, timeout=120)


def _processes(*words: str) -> list[psutil.Process]:
    """The processes whose command lines have all of these words."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it has ended meanwhile
            if set(words) <= set(process.cmdline()):
                found.append(process)
    return found


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
        stack.callback(os.umask, os.umask(0o022))  # a command that ran in this process has made it private
        python = _interpreter(folder)
        base = make_base(folder / "base")
        shutil.copytree(base, folder / "base-of-the-coordinator")
        for path in (base, *base.iterdir()):
            path.chmod(0o755)
        data = make_data(folder / "data", MEMBERS)
        for path in (data, *data.iterdir()):
            path.chmod(0o755 if path.is_dir() else 0o644)
        home = folder / "coordinator"
        world = World(base, data, home / "state")
        key = keys.create(folder / "key" / "own.key")
        anvil = Anvil(folder, free_port())
        stack.callback(anvil.kill)
        anvil.start()
        anvil.ask("anvil_setBalance", key.address, hex(10**21))
        port, control = free_port(), free_port()
        made = world_command(*_init(folder, anvil.url, port, control))
        found = Deployment(folder, world, port, control, anvil, Address(made["contract"]), python, stack)
        owners = users()
        for kit in made["kits"]:
            _join(found, kit["organisation"], kit["file"], owners)
        requests = [folder / name / "request.json" for name in MEMBERS]
        assert all(
            o["registered"] for o in world_command("deploy", "admit", *requests, "--federation", home)["organisations"]
        )
        stack.enter_context(part(found, "coordinator", home, None, "coordinator"))
        for name in MEMBERS:
            stack.enter_context(part(found, "signer", found.signer(name), owners[f"signer-{name}"], f"signer-{name}"))
        for name in MEMBERS:
            until(found.socket(name).exists, folder / f"signer-{name}.log")
            # A SuperNode ends when its key is not known yet.
            until(lambda name=name: f"Node {name}: registered" in found.log("coordinator"), folder / "coordinator.log")
            stack.enter_context(part(found, "node", found.node(name), owners[f"node-{name}"], f"node-{name}"))
        for name in MEMBERS:
            until(lambda name=name: "worker ready" in found.log(f"node-{name}"), folder / f"node-{name}.log", 2)
        yield found


def world_command(*arguments: object) -> dict[str, Any]:
    """What a command of the operator's answers."""
    done = foedus(*arguments, "--json")
    assert done.code == 0, done.err
    return done.json


def _init(folder: Path, chain: str, port: int, control: int) -> list[object]:
    """The command that makes the coordinator's folder."""
    run = {
        "rounds": 2, "local-steps": 2, "batch-size": 2, "max-length": 64, "rank": 4, "alpha": 8.0, "evaluate-limit": 4,
        "quantisation": "none", "participation": "all",
    }  # fmt: skip
    settings = {
        "name": "clinics", "hosts": ["localhost"], "organisations": MEMBERS, "chain": chain,
        "base": str(folder / "base-of-the-coordinator"), "require-registration": True, "control-port": control,
        "listen": f"127.0.0.1:{port}", "key": str(folder / "key" / "own.key"), "metrics": f"127.0.0.1:{free_port()}",
    }  # fmt: skip
    lines = [f"{name} = {json.dumps(value)}\n" for name, value in settings.items()]
    lines += ["[run]\n", *(f"{name} = {json.dumps(value)}\n" for name, value in run.items())]
    (folder / "federation.toml").write_text("".join(lines))
    return ["deploy", "init", folder / "federation.toml", "--out", folder / "coordinator"]


def _join(found: Deployment, name: str, kit: str, owners: Mapping[str, str | None]) -> None:
    chosen: list[object] = ["--data", found.world.data, "--base", found.world.base, "--out", found.folder / name]
    chosen += ["--metrics", f"127.0.0.1:{free_port()}"]
    for kind in ("node", "signer"):
        if user := owners[f"{kind}-{name}"]:
            chosen += [f"--{kind}-user", user]
    world_command("join", kit, *chosen)


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


@dataclass
class Anvil:
    """A chain that is nobody's of these; what it has mined lies on its disk."""

    folder: Path
    port: int
    process: "subprocess.Popen[bytes] | None" = None
    first: int = 0
    """The newest block when it was started: what lies before it can't be mined in another way."""

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, with all that was mined before."""
        state = ["--state", str(self.folder / "anvil.json"), "--state-interval", "1"]
        command = [str(binary()), "--port", str(self.port), "--chain-id", str(CHAIN_ID), "--accounts", "1", "--silent"]
        self.process = subprocess.Popen([*command, *state], stdin=subprocess.DEVNULL)
        until(lambda: listens(self.port), self.folder)
        self.first = self.newest

    @property
    def newest(self) -> int:
        """The number of its newest block."""
        return int(self.ask("eth_blockNumber"), 16)

    def reorganise(self, blocks: int) -> None:
        """Mine the last blocks in another way, as soon as there are so many since its start."""
        until(lambda: self.newest >= self.first + blocks, self.folder)
        self.ask("anvil_reorg", blocks, [])

    def kill(self) -> None:
        """End it as a power cut does."""
        assert self.process
        self.process.kill()
        self.process.wait(timeout=60)

    def ask(self, method: str, *parameters: object) -> Any:
        """What it answers to a question."""
        asked = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
        answer = httpx.post(self.url, json=asked, timeout=30.0).json()
        assert "error" not in answer, answer
        return answer["result"]


def listens(port: int) -> bool:
    """Whether something listens on a port of the loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def part(
    found: Deployment, command: str, home: Path, user: str | None, log: str
) -> "Iterator[subprocess.Popen[bytes]]":
    """A command in the foreground of a process of its own, which is ended at the end."""
    own: Mapping[str, str] = {**os.environ, "HOME": str(home)} if user else os.environ
    python = found.python if user else Path(sys.executable)
    with (found.folder / f"{log}.log").open("ab") as file:
        process = subprocess.Popen(
            [python, python.parent / "foedus", command, home],
            **_identity(user), env=own, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
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
