"""What the runbooks tell an operator to type does what they say, on a running deployment."""

import json
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from console.backends.children import free_port
from core.storage.state_folder import State
from tests.commands import foedus
from tests.integration.deployed import Deployment, until
from tests.nginx import needs_nginx

pytestmark = [pytest.mark.slow, pytest.mark.chain, needs_nginx]


def nodes(deployment: Deployment) -> dict[str, str]:
    """The status of every node key that the SuperLink knows, by its id."""
    listed = json.loads(deployment.flwr("supernode", "list", "federation", "--format", "json").stdout)
    return {str(node["node-id"]): node["status"] for node in listed["nodes"]}


def test_a_node_key_that_is_lost_is_taken_back(deployment: Deployment) -> None:
    before = nodes(deployment)
    public = ec.generate_private_key(ec.SECP384R1()).public_key()
    text = public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    path = deployment.coordinator / "nodes" / "stolen.pub"
    path.write_bytes(text + b"\n")
    until(lambda: "Node stolen: registered" in deployment.log("coordinator"), deployment.folder / "coordinator.log")
    (added,) = nodes(deployment).keys() - before.keys()

    path.unlink()
    assert deployment.flwr("supernode", "unregister", added, "federation").returncode == 0
    assert added not in {node for node, status in nodes(deployment).items() if status in ("online", "registered")}
    assert before.keys() <= nodes(deployment).keys()


def test_a_coordinator_that_is_lost_comes_back_from_its_backup(deployment: Deployment, tmp_path: Path) -> None:
    deployment.start(deployment.app, "kept", rounds=1)
    assert deployment.end("kept")["event"] == "finished"
    copy, again = tmp_path / "coordinator.tar.gz", tmp_path / "again"
    assert foedus("backup", deployment.coordinator, "--out", copy, "--json").code == 0
    assert foedus("restore", copy, "--out", again, "--json").code == 0
    done = foedus("verify", "kept", "--state", again / "state", "--json").json
    assert (done["ok"], done["recomputed"]) == (True, 1)
    # What is wrong with it there is that the first one runs.
    said = {check["name"]: check["ok"] for check in foedus("doctor", again, "--json").json["checks"]}
    assert said["contract"]
    assert said["chain"]


def test_a_chain_that_is_lost_leaves_what_can_be_checked_without_it(deployment: Deployment) -> None:
    run = State(deployment.world.state).existing().name
    gone = f"http://127.0.0.1:{free_port()}"
    done = foedus("verify", run, "--state", deployment.world.state, "--chain", gone, "--json")
    assert done.code == 1
    assert {failure["what"] for failure in done.json["failures"]} == {"chain unreachable"}
    assert done.json["checked"]["records"]


def test_a_full_disk_gets_room_and_the_run_holds(deployment: Deployment, tmp_path: Path) -> None:
    deployment.start(deployment.app, "long", rounds=4)
    assert deployment.end("long")["event"] == "finished"
    key = deployment.folder / "key" / "own.key"
    state = tmp_path / "state"
    shutil.copytree(deployment.world.state, state)
    done = foedus("prune", "long", "--keep", 2, "--key", key, "--state", state, "--json").json
    assert len(done["removed"]) == 2
    report = foedus("verify", "long", "--key", key, "--state", state, "--json").json
    assert (report["ok"], report["recomputed"]) == (True, 4)
