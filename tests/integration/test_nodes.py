"""A deployment as it is meant: a coordinator behind nginx, and nodes that run their own code, with signers."""

import json
import os
import pwd
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import psutil
import pytest

from console.backends.app_folder import stage
from console.backends.children import flower_environment, free_port, script
from console.backends.proxy import own_certificate
from core import keys
from core.storage.events import EventLog
from core.storage.run_folder import RunFolder
from core.storage.state_folder import State
from tests.commands import PATIENCE_SECONDS, World, foedus, make_base, make_data
from tests.nginx import needs_nginx

pytestmark = [pytest.mark.slow, pytest.mark.chain, needs_nginx]

MEMBERS = ("coding", "medical")


@dataclass
class Deployment:
    """Folders and ports of what runs."""

    folder: Path
    world: World
    port: int
    control: int

    def flwr(self, *arguments: object, home: Path | None = None) -> "subprocess.CompletedProcess[str]":
        """Flower's command line on the coordinator's machine, or with another home."""
        environment = flower_environment(home or self.folder / "coordinator" / "state" / "flower")
        command = [*script("flwr"), *map(str, arguments)]
        return subprocess.run(
            command, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=120
        )

    def start(self, app: Path, run: str, **changes: object) -> None:
        """Submit an app as the coordinator does, and wait for the end of its ServerApp."""
        settings = {
            "run": run, "state": str(self.world.state), "base": str(self.folder / "base-of-the-coordinator"),
            "quantisation": "none", "rounds": 2, "organisations": 2, "quorum": 2, "local-steps": 2, "batch-size": 2,
            "max-length": 64, "rank": 4, "alpha": 8.0, "evaluate-limit": 4,
            "coordinator-key": str(self.folder / "coordinator.key"), **changes,
        }  # fmt: skip
        overrides = self.folder / f"{run}.toml"
        overrides.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items()))
        done = self.flwr("run", app, "federation", "--run-config", overrides)
        assert done.returncode == 0, done.stdout + done.stderr

    def end(self, run: str) -> dict[str, object]:
        """The last event of a run that has ended."""
        path, log = State(self.world.state).events(run), self.folder / "coordinator.log"
        until(lambda: any(e["event"] in ("finished", "failed") for e in EventLog.read(path)[0]), log, 2)
        return dict(EventLog.read(path)[0][-1])

    def log(self, part: str) -> str:
        return (self.folder / f"{part}.log").read_text()


@pytest.fixture(scope="module")
def deployment() -> Iterator[Deployment]:
    # Signers of another user must reach their folders, and each start of pytest closes those of its own.
    with TemporaryDirectory(prefix="foedus-") as name:
        Path(name).chmod(0o755)
        yield from deployed(Path(name))


def deployed(folder: Path) -> Iterator[Deployment]:
    base = make_base(folder / "base")
    shutil.copytree(base, folder / "base-of-the-coordinator")
    world = World(base, make_data(folder / "data", MEMBERS), folder / "state")
    keys.create(folder / "coordinator.key")
    chain = world.command("chain start").json["url"]
    contract = world.command("chain deploy").json["addresses"]["PublicLedger"]
    found = Deployment(folder, world, free_port(), free_port())
    with ExitStack() as stack:
        write_coordinator(found)
        for name in MEMBERS:
            write_signer(found, name, chain, contract)
            write_node(found, name, chain)
        stack.enter_context(part(found, "coordinator", folder / "coordinator"))
        for name in MEMBERS:
            stack.enter_context(part(found, "signer", folder / f"signer-{name}", as_nobody=os.getuid() == 0))
            until((folder / f"signer-{name}" / "signer.sock").exists, folder / f"signer-{name}.log")
            stack.enter_context(part(found, "node", folder / f"node-{name}"))
            until(lambda name=name: "worker ready" in found.log(f"node-{name}"), folder / f"node-{name}.log")
        yield found
    world.command("chain stop")


def write_coordinator(found: Deployment) -> None:
    home = found.folder / "coordinator"
    (home / "nodes").mkdir(parents=True)
    certificate, key = own_certificate(found.folder / "public")
    (home / "coordinator.toml").write_text(
        f'certificate = "{certificate}"\nprivate-key = "{key}"\n'
        f'listen = "127.0.0.1:{found.port}"\ncontrol-port = {found.control}\n'
    )


def write_signer(found: Deployment, name: str, chain: str, contract: str) -> None:
    home = found.folder / f"signer-{name}"
    home.mkdir()
    keys.create(home / "key")
    asked = {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []}
    chain_id = int(httpx.post(chain, json=asked).json()["result"], 16)
    coordinator = keys.read(found.folder / "coordinator.key").address
    (home / "signer.toml").write_text(
        f'coordinator = "{coordinator}"\nchain-id = {chain_id}\ncontract = "{contract}"\nusers = ["root"]\n'
    )
    if os.getuid() == 0:
        nobody = pwd.getpwnam("nobody")
        for path in (home, *home.iterdir()):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)


def write_node(found: Deployment, name: str, chain: str) -> None:
    home = found.folder / f"node-{name}"
    (home / "data").mkdir(parents=True)
    shutil.copy(found.world.data / f"{name}.jsonl", home / "data")
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-f", home / "node"], check=True)
    shutil.copy(home / "node.pub", found.folder / "coordinator" / "nodes" / f"{name}.pub")
    (home / "node.toml").write_text(
        f'organisation = "{name}"\nsuperlink = "localhost:{found.port}"\nnode-key = "node"\ndata = "data"\n'
        f'root-certificates = "{found.folder}/public/link/certificate.pem"\nbase = "{found.world.base}"\n'
        f'signer = "{found.folder}/signer-{name}/signer.sock"\nchain-url = "{chain}"\n'
    )


@contextmanager
def part(
    found: Deployment, command: str, home: Path, *, as_nobody: bool = False
) -> "Iterator[subprocess.Popen[bytes]]":
    """A command in the foreground of a process of its own, which is ended at the end."""
    # The interpreter may lie where nobody else can read: what is needed is imported before the user is changed.
    code = "import os, sys, console.signer; from console.cli import run_command; from tests import federation as f; "
    code += "f.signed(f.genesis()); "  # signing imports codecs and more when it is first done
    code += f"os.setuid({pwd.getpwnam('nobody').pw_uid}); sys.exit(run_command(sys.argv[1:]))"
    program = [sys.executable, "-c", code] if as_nobody else script("foedus")
    with (found.folder / f"{home.name}.log").open("wb") as log:
        process = subprocess.Popen(
            [*program, command, str(home)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=60)


def until(holds: Callable[[], bool], log: Path, times: int = 1) -> None:
    deadline = time.monotonic() + times * PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if holds():
            return
        time.sleep(0.2)
    pytest.fail(f"it did not come: {log.read_text()[-3000:]}")


def run_of(found: Deployment, name: str) -> RunFolder:
    return State(found.world.state).existing(name)


def workers(name: str) -> list[psutil.Process]:
    """The workers of a node that live."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it has ended meanwhile
            line = process.cmdline()
            if "client_app.worker" in line and name in " ".join(line):
                found.append(process)
    return found


def test_organisations_train_together_with_keys_that_no_worker_sees(deployment: Deployment) -> None:
    before = {name: workers(f"node-{name}")[0].pid for name in MEMBERS}
    deployment.start(deployment.folder / "coordinator" / "state" / "app", "honest")
    assert deployment.end("honest")["event"] == "finished", deployment.log("coordinator")[-3000:]
    run = run_of(deployment, "honest")
    records = [signed.value for signed in run.records()]
    assert [len(record.admitted) for record in records] == [2, 2]
    assert not any("trusting" in a.signed.value.metrics for record in records for a in record.admitted)
    assert foedus("verify", "honest", "--state", deployment.world.state, "--json").json["ok"]
    assert {name: workers(f"node-{name}")[0].pid for name in MEMBERS} == before, "one worker answers every message"
    for name in MEMBERS:
        key = deployment.folder / f"signer-{name}" / "key"
        assert keys.read(key).address in {member.address for member in run.genesis.organisations}
        assert key.read_text().strip() not in deployment.log(f"node-{name}") + deployment.log(f"signer-{name}")
        assert list((deployment.folder / f"signer-{name}" / "state" / "witness").rglob("*.jsonl"))


def test_a_coordinator_that_ships_changed_client_code_is_refused_by_every_node_and_named(
    deployment: Deployment,
) -> None:
    app, ran = stage(deployment.folder / "evil"), deployment.folder / "ran"
    with (app / "client_app" / "app.py").open("a") as code:
        code.write(f"\nopen({str(ran)!r}, 'w').write('harm')\n")
    deployment.start(app, "evil", timeout=30.0)
    assert deployment.end("evil")["event"] == "failed"
    for name in MEMBERS:
        log = deployment.log(f"node-{name}")
        assert "app: expected that of this node" in log
        assert "differs in 'client_app/app.py'" in log
    assert not ran.exists()


def test_a_rogue_with_the_ca_certificate_starts_nothing_and_registers_nowhere(deployment: Deployment) -> None:
    rogue = deployment.folder / "rogue"
    rogue.mkdir()
    certificate = deployment.folder / "public" / "link" / "certificate.pem"
    (rogue / "config.toml").write_text(
        f'[superlink]\ndefault = "federation"\n\n[superlink.federation]\naddress = "localhost:{deployment.port}"\n'
        f'root-certificates = "{certificate}"\n'
    )
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-f", rogue / "node"], check=True)
    app = stage(rogue / "app")
    for attempt in (("run", app), ("supernode", "register", rogue / "node.pub"), ("supernode", "list"), ("ls",)):
        done = deployment.flwr(*attempt, "federation", home=rogue)
        assert done.returncode != 0, done.stdout
    # The same on the coordinator's own machine goes: what is kept out is the network.
    assert deployment.flwr("supernode", "list", "federation").returncode == 0
    with httpx.Client(verify=ssl.create_default_context(cafile=certificate)) as client:
        for path in ("/v1/control/start-run", "/v1/runtime/acquire-task", "/docs"):
            assert client.post(f"https://localhost:{deployment.port}{path}", content=b"").status_code == 404
        assert client.get(f"https://localhost:{deployment.port}/health").is_success
    command = [*script("flower-supernode"), "--superlink", f"localhost:{deployment.port}", "--port", str(free_port())]
    command += ["--root-certificates", str(certificate), "--auth-supernode-private-key", str(rogue / "node")]
    with (deployment.folder / "rogue.log").open("wb") as log:
        node = subprocess.Popen(command, env={**os.environ, **flower_environment(rogue)}, stdout=log, stderr=log)
    try:
        until(lambda: "Failed to activate SuperNode" in deployment.log("rogue"), deployment.folder / "rogue.log")
        assert node.wait(timeout=60), "a node with a key of its own is admitted by nobody"
    finally:
        node.kill()


def test_a_worker_that_is_killed_is_started_again_and_the_next_run_goes_on(deployment: Deployment) -> None:
    (killed,) = workers("node-medical")
    os.kill(killed.pid, signal.SIGKILL)
    ready = deployment.log("node-medical").count("worker ready")
    until(lambda: deployment.log("node-medical").count("worker ready") > ready, deployment.folder / "node-medical.log")
    deployment.start(deployment.folder / "coordinator" / "state" / "app", "again", rounds=1)
    assert deployment.end("again")["event"] == "finished"
