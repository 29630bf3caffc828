"""A deployment as it is meant: a coordinator behind nginx, and nodes that run their own code, with signers."""

import os
import signal
import ssl
import subprocess
from pathlib import Path

import httpx
import psutil
import pytest

from client_app.remote_key import RemoteKey
from console.backends.app_folder import stage
from console.backends.children import flower_environment, free_port, script
from core import keys
from core.storage.state_folder import State
from tests.commands import foedus
from tests.integration.deployed import MEMBERS, PRIVILEGED, Deployment, until, users
from tests.nginx import needs_nginx
from unlearning.certificate import read_certificate

pytestmark = [pytest.mark.slow, pytest.mark.chain, needs_nginx]


def test_organisations_train_together_with_keys_that_no_worker_sees(deployment: Deployment) -> None:
    before = {name: deployment.workers(name)[0].pid for name in MEMBERS}
    deployment.start(deployment.app, "honest", quorum=2)  # two can go on without the third
    assert deployment.end("honest")["event"] == "finished", deployment.log("coordinator")[-3000:]
    run = deployment.run("honest")
    records = [signed.value for signed in run.records()]
    assert [len(record.admitted) for record in records] == [3, 3]
    assert not any("trusting" in a.signed.value.metrics for record in records for a in record.admitted)
    assert run.genesis.chain.contract == deployment.contract
    audit = foedus("verify", "honest", "--state", deployment.world.state, "--json").json
    assert (audit["ok"], audit["failures"], audit["recomputed"], audit["attested"]) == (True, [], 2, 0)
    assert {name: deployment.workers(name)[0].pid for name in MEMBERS} == before, "one worker answers every message"
    for name in MEMBERS:
        key = deployment.signer(name) / "key"
        assert keys.read(key).address in {member.address for member in run.genesis.organisations}
        assert key.read_text().strip() not in deployment.log(f"node-{name}") + deployment.log(f"signer-{name}")
        assert list((deployment.signer(name) / "state" / "witness").rglob("*.jsonl"))
        # Asked on the organisation's machine, of its own memory and the chain that it chose.
        own = foedus("witness", "--state", deployment.node(name) / "state", "--chain", deployment.chain, "--json")
        assert (own.code, own.json["ok"], own.json["rounds"]) == (0, True, {name: 2})


@pytest.mark.skipif(not PRIVILEGED, reason="needs root, to start processes under other users")
def test_a_node_reads_no_signers_key_and_is_answered_by_its_own_alone(deployment: Deployment) -> None:
    owners = users()
    assert len(set(owners.values())) == 2 * len(MEMBERS)
    asking = f"import sys; from pathlib import Path; from {RemoteKey.__module__} import RemoteKey; "
    asking += "print(RemoteKey(Path(sys.argv[1])).address)"
    for name in MEMBERS:
        user = owners[f"node-{name}"]
        (worker,) = deployment.workers(name)
        assert worker.username() == user
        for other in MEMBERS:
            home = deployment.signer(other)
            for secret in (home / "key", home / "state" / "witness"):
                done = deployment.as_user(user, ["ls" if secret.is_dir() else "cat", str(secret)])
                assert done.returncode
                assert "Permission denied" in done.stderr
            done = deployment.as_user(user, [str(deployment.python), "-c", asking, str(deployment.socket(other))])
            assert (done.returncode == 0) == (other == name), done.stderr
            # Nor does it reach a signer's memory, or what another organisation's node holds.
            (signer,) = [p for p in psutil.process_iter(["cmdline"]) if str(home) in (p.info["cmdline"] or [])]
            assert deployment.as_user(user, ["cat", f"/proc/{signer.pid}/environ"]).returncode
            secret = deployment.node(other) / "node"
            assert bool(deployment.as_user(user, ["cat", str(secret)]).returncode) == (other != name)


@pytest.mark.skipif(not PRIVILEGED, reason="needs root, to start processes under other users")
def test_an_organisation_is_erased_at_a_request_of_its_signer_s_user_and_not_of_its_node_s(
    deployment: Deployment,
) -> None:
    owners, home = users(), deployment.signer("medical")
    written, given = home / "state" / "request.json", deployment.folder / "request.json"
    asking = [str(deployment.python), str(deployment.python.parent / "foedus"), "request", str(home)]
    asking += ["--run", "honest", "--method", "remove", "--out", str(written)]
    assert deployment.as_user(owners["node-medical"], ["env", f"HOME={home}", *asking]).returncode
    assert not written.exists()
    done = deployment.as_user(owners["signer-medical"], ["env", f"HOME={home}", *asking])
    assert done.returncode == 0, done.stderr
    given.write_bytes(written.read_bytes())
    deployment.start(deployment.app, "honest", quorum=2, mode="unlearn", request=str(given))
    assert deployment.end("honest", 2)["event"] == "finished", deployment.log("coordinator")[-3000:]
    run = deployment.run("honest")
    (path,) = (run.folder / "certificates").iterdir()
    certificate = read_certificate(path.read_bytes()).verified(run.genesis)
    assert certificate.attestation.value.organisation == run.genesis.named("medical").address
    assert {receipt.value.organisation for receipt in certificate.receipts} == set(run.genesis.names)
    assert foedus("check", path, "--state", deployment.world.state, "--json").json["ok"]


def test_a_dry_run_tries_every_node_and_founds_nothing(deployment: Deployment) -> None:
    state = State(deployment.coordinator / "state")
    runs, before = [run.name for run in state.runs()], remembered(deployment)
    done = foedus("deploy", "check", "--federation", deployment.coordinator, "--json")
    assert done.code == 0, done.out + done.err
    nodes = sorted(done.json["nodes"], key=lambda node: str(node["organisation"]))
    assert [(node["organisation"], node["ok"], node["problems"]) for node in nodes] == [(n, True, []) for n in MEMBERS]
    assert all(node["seconds"] > 0 and node["memory"] > 2**27 for node in nodes)
    assert [run.name for run in state.runs()] == runs
    assert remembered(deployment) == before


def remembered(deployment: Deployment) -> dict[Path, bytes]:
    """What nodes and signers remember of federations."""
    folders = [place / "state" for name in MEMBERS for place in (deployment.node(name), deployment.signer(name))]
    kinds = [folder / kind for folder in folders for kind in ("agreed", "witness", "privacy", "forgotten")]
    return {path: path.read_bytes() for kind in kinds for path in kind.rglob("*") if path.is_file()}


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
    def known() -> int:
        listed = deployment.flwr("supernode", "list", "federation", "--format", "json")
        count = listed.stdout.count('"node-id"')
        assert count >= len(MEMBERS), listed.stdout
        return count

    before, rogue = known(), deployment.folder / "rogue"
    rogue.mkdir()
    (rogue / "config.toml").write_text(
        f'[superlink]\ndefault = "federation"\n\n[superlink.federation]\naddress = "localhost:{deployment.port}"\n'
        f'root-certificates = "{deployment.certificate}"\n'
    )
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-f", rogue / "node"], check=True)
    app = stage(rogue / "app")
    for attempt in (("run", app), ("supernode", "register", rogue / "node.pub"), ("supernode", "list"), ("ls",)):
        done = deployment.flwr(*attempt, "federation", home=rogue)
        assert done.returncode != 0, done.stdout
    # The same on the coordinator's own machine goes: what is kept out is the network.
    assert known() == before
    with httpx.Client(verify=ssl.create_default_context(cafile=deployment.certificate)) as client:
        for path in ("/v1/control/start-run", "/v1/runtime/acquire-task", "/docs"):
            assert client.post(f"https://localhost:{deployment.port}{path}", content=b"").status_code == 404
        assert client.get(f"https://localhost:{deployment.port}/health").is_success
    command = [*script("flower-supernode"), "--superlink", f"localhost:{deployment.port}", "--port", str(free_port())]
    command += ["--root-certificates", str(deployment.certificate), "--auth-supernode-private-key", str(rogue / "node")]
    with (deployment.folder / "rogue.log").open("wb") as log:
        node = subprocess.Popen(command, env={**os.environ, **flower_environment(rogue)}, stdout=log, stderr=log)
    try:
        until(lambda: "Failed to activate SuperNode" in deployment.log("rogue"), deployment.folder / "rogue.log")
        assert node.wait(timeout=60), "a node with a key of its own is admitted by nobody"
    finally:
        node.kill()


def test_a_coordinator_listens_for_nodes_alone(deployment: Deployment) -> None:
    home = str(deployment.coordinator)
    (found,) = [p for p in psutil.process_iter(["cmdline"]) if (p.info["cmdline"] or [])[-2:] == ["coordinator", home]]
    heard = {
        (child.name() == "nginx", at.laddr)
        for child in found.children(recursive=True)
        for at in child.net_connections("tcp")
        if at.status == psutil.CONN_LISTEN
    }
    assert heard == {(True, ("127.0.0.1", deployment.port)), (False, ("127.0.0.1", deployment.control))}


def test_a_worker_that_is_killed_is_started_again_and_the_next_run_goes_on(deployment: Deployment) -> None:
    (killed,) = deployment.workers("medical")
    ready = deployment.log("node-medical").count("worker ready")
    os.kill(killed.pid, signal.SIGKILL)
    deployment.wait_for_worker("medical", ready + 1)
    deployment.start(deployment.app, "again", rounds=1)
    ended = deployment.end("again")
    assert ended["event"] == "finished", ended
