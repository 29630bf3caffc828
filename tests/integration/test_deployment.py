"""Several machines on one: a SuperLink, and a SuperNode with a key and data of its own for every organisation."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from console.backends.app_folder import stage
from console.backends.children import free_port
from core import keys
from core.canonical import Address
from core.storage.events import EventLog
from core.storage.run_folder import RunFolder
from core.storage.state_folder import State
from tests.commands import PATIENCE_SECONDS, World, foedus
from unlearning.certificate import read_certificate

pytestmark = [pytest.mark.slow, pytest.mark.chain]

MEMBERS = ("coding", "medical")


def test_organisations_on_machines_of_their_own_train_together(world: World, tmp_path: Path) -> None:
    owned = {name: keys.create(tmp_path / "keys" / f"{name}.key") for name in (*MEMBERS, "coordinator")}
    url = foedus("chain", "start", "--state", world.state, "--json").json["url"]
    with ExitStack() as stack:
        link, address = stack.enter_context(superlink(tmp_path))
        for name in MEMBERS:
            data = tmp_path / "at" / name  # each organisation sees its own data and nobody else's
            data.mkdir(parents=True)
            (data / f"{name}.jsonl").write_bytes((world.data / f"{name}.jsonl").read_bytes())
            place = {"organisation": name, "data": str(data), "key-file": str(tmp_path / "keys" / f"{name}.key")}
            place |= {"state": str(tmp_path / "at" / f"{name}-state"), "base": str(world.base)}
            if name == "medical":
                place |= {"chain-url": url}
            stack.enter_context(supernode(tmp_path, address, name, place))
        submit(link, world, tmp_path)
        wait_for_end(world)
        submit(link, world, tmp_path, mode="unlearn", request=str(requested(tmp_path)))
        wait_for_end(world, 2)

    run = State(world.state).existing("deployed")
    members = {organisation.name: organisation for organisation in run.genesis.organisations}
    assert {name: member.address for name, member in members.items()} == {name: owned[name].address for name in MEMBERS}
    assert not any(member.derived for member in members.values())
    assert run.genesis.coordinator == owned["coordinator"].address
    line = [signed.value for signed in run.records() if not signed.value.generation]
    assert [len(record.admitted) for record in line] == [2, 2]
    trusting = {a.organisation: "trusting" in a.signed.value.metrics for record in line for a in record.admitted}
    assert trusting == {owned["coding"].address: True, owned["medical"].address: False}
    assert foedus("verify", "deployed", "--state", world.state, "--json").json["ok"]
    (path,) = (run.folder / "certificates").iterdir()
    certificate = read_certificate(path.read_bytes()).verified(run.genesis)
    assert {receipt.value.organisation for receipt in certificate.receipts} == set(members_of(run))
    assert not certificate.outstanding
    assert foedus("check", path, "--state", world.state, "--json").json["ok"]


def requested(folder: Path) -> Path:
    """The request that medical signs, with what its node keeps; the coordinator is handed the file."""
    home, out = folder / "at" / "medical", folder / "request.json"
    coordinator = keys.read(folder / "keys" / "coordinator.key").address
    (home / "node.toml").write_text(
        'organisation = "medical"\nsuperlink = "localhost:1"\ndata = "."\nstate = "../medical-state"\n'
        f'key-file = "{folder}/keys/medical.key"\npin-coordinator = "{coordinator}"\n'
    )
    assert foedus("request", home, "--method", "remove", "--out", out).code == 0
    return out


def members_of(run: RunFolder) -> list[Address]:
    return [organisation.address for organisation in run.genesis.organisations]


@contextmanager
def superlink(folder: Path) -> Iterator[tuple[Path, str]]:
    """A SuperLink on a free port: (its Flower home, its address)."""
    address = f"127.0.0.1:{free_port()}"
    home = folder / "link"
    home.mkdir()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "test"\n\n[superlink.test]\naddress = "{address}"\ninsecure = true\n'
    )
    options = ["--insecure", "--host", "127.0.0.1", "--port", address.split(":")[1]]
    with process("flower-superlink", [*options, "--disable-runtime-dependency-installation"], home):
        wait_until_healthy(address)
        yield home, address


@contextmanager
def supernode(folder: Path, address: str, name: str, place: dict[str, str]) -> Iterator[None]:
    home = folder / f"node-{name}"
    home.mkdir()
    node_config = " ".join(f"{key}={json.dumps(value)}" for key, value in place.items())
    options = ["--insecure", "--superlink", address, "--port", str(free_port()), "--node-config", node_config]
    with process("flower-supernode", options, home):
        yield


@contextmanager
def process(script: str, options: list[str], home: Path) -> Iterator[None]:
    """One of Flower's scripts with a home of its own, ended by process group."""
    with (home / "log").open("wb") as log:
        started = subprocess.Popen(
            [sys.executable, str(Path(sys.executable).parent / script), *options],
            cwd=home, env=environment(home), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        yield
    finally:
        started.terminate()
        started.wait(timeout=60)


def submit(link: Path, world: World, folder: Path, **changes: str) -> None:
    settings = {
        "run": "deployed", "state": str(world.state), "base": str(world.base), "quantisation": "none", "rounds": 2,
        "organisations": 2, "participation": "all", "local-steps": 2, "batch-size": 2, "max-length": 64,
        "rank": 4, "alpha": 8.0, "evaluate-limit": 4,
        "coordinator-key": str(folder / "keys" / "coordinator.key"), **changes,
    }  # fmt: skip
    overrides = link / "run.toml"
    overrides.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items()))
    flwr = [sys.executable, str(Path(sys.executable).parent / "flwr")]
    app = stage(folder / f"app-{changes.get('mode', 'train')}")
    subprocess.run(
        [*flwr, "run", str(app), "test", "--run-config", str(overrides)], cwd=link, env=environment(link), check=True
    )


def wait_for_end(world: World, times: int = 1) -> None:
    """Until the ServerApp has ended so many times."""
    path = State(world.state).events("deployed")
    deadline = time.monotonic() + 3 * PATIENCE_SECONDS  # every message starts a process that loads the base anew
    while time.monotonic() < deadline:
        ends = [event for event in EventLog.read(path)[0] if event["event"] in ("finished", "failed")]
        if len(ends) == times:
            assert ends[-1]["event"] == "finished", ends[-1]
            return
        time.sleep(0.5)
    pytest.fail(f"the run did not end in {3 * PATIENCE_SECONDS} s")


def wait_until_healthy(address: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"http://{address}/health", timeout=1.0).is_success:
                return
        except httpx.HTTPError:
            time.sleep(0.2)
    pytest.fail(f"no SuperLink on {address}")


def environment(home: Path) -> dict[str, str]:
    quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "OMP_NUM_THREADS": "1"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, **quiet, "FLWR_HOME": str(home), "PATH": path}
