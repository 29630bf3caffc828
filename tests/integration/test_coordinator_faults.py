"""What happens to the coordinator's machine and its door while a federation trains."""

import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import psutil
import pytest

from console.backends.children import flower_environment, free_port, script
from console.backends.deployment import last_error
from console.deployments import certificates
from core.storage.lock import is_held
from core.storage.state_folder import State
from tests.commands import foedus, started
from tests.integration.deployed import PRIVILEGED, Deployment, until, world_command
from tests.integration.faults import Live, fill, small_disk
from tests.nginx import needs_nginx

pytestmark = [pytest.mark.slow, pytest.mark.chain, needs_nginx]


def test_two_federations_on_one_coordinator_do_not_mix(deployment: Deployment) -> None:
    runs = [Live(deployment, name, rounds=3, seed=seed) for seed, name in enumerate(("first", "second"), 1)]
    records = [run.finish() for run in runs]
    assert [len(each) for each in records] == [3, 3]
    first, second = ({record.genesis for record in each} for each in records)
    assert not first & second


def pour(connection: socket.socket) -> None:
    """Send 100 MiB of anything, or as much as is taken."""
    for _ in range(100):
        connection.sendall(os.urandom(2**20))


def test_garbage_and_a_flood_at_the_port_cost_no_update(deployment: Deployment) -> None:
    superlink = deployment.part_of("coordinator", deployment.coordinator, "flower-superlink")
    before = superlink.memory_info().rss
    run = Live(deployment, "flood", rounds=4)
    run.wait_for("round-started", 1)
    trusting, address = ssl.create_default_context(cafile=deployment.certificate), ("127.0.0.1", deployment.port)
    with ExitStack() as stack:
        for _ in range(300):  # connections that say nothing
            with suppress(OSError):
                stack.enter_context(socket.create_connection(address, timeout=5))
        with suppress(OSError), socket.create_connection(address, timeout=5) as plain:
            pour(plain)
        talking = partial(trusting.wrap_socket, server_hostname="localhost")
        with suppress(OSError), talking(socket.create_connection(address, timeout=5)) as door:
            door.sendall(b"POST /v1/fleet/pull-messages HTTP/1.1\r\nHost: localhost\r\n")
            door.sendall(b"Content-Length: 104857600\r\n\r\n")
            pour(door)
        records = run.finish()
    assert [len(record.admitted) for record in records] == [3] * 4
    assert superlink.memory_info().rss - before < 2**27


@pytest.mark.skipif(not PRIVILEGED, reason="needs root, to mount a file system")
def test_a_coordinator_whose_disk_is_full_stops_and_goes_on_when_there_is_room(
    deployment: Deployment, tmp_path: Path
) -> None:
    (disk := tmp_path / "disk").mkdir(mode=0o700)
    shutil.copytree(deployment.world.state / "chain", disk / "chain")  # it knows its contract
    with small_disk(disk, 32):
        run = Live(deployment, "full-disk", rounds=5, state=str(disk))
        run.wait_for("round-closed", 1)
        filler = fill(disk)
        log = deployment.folder / "coordinator.log"
        until(lambda: not is_held(run.state.lock("full-disk")), log, 2)
        flower_id = re.findall(r"Created run (\d+)", deployment.log("coordinator"))[-1]
        printed = deployment.flwr("log", flower_id, "federation", "--show").stdout
        assert "No space left on device" in last_error(printed), printed[-3000:]
        filler.unlink()
        kept = len(list((run.state.run("full-disk").folder / "records").iterdir()))
        run.ends = len(run.events("failed"))
        run.start(resume=True)
        records = run.finish()
    assert 1 <= kept <= 5
    assert [record.round for record in records] == [1, 2, 3, 4, 5]


def door(deployment: Deployment) -> psutil.Process | None:
    """The nginx that serves, if one does."""
    started = deployment.command("coordinator", deployment.coordinator).children()
    serving = (process for process in started if process.status() != psutil.STATUS_ZOMBIE)
    return next((process for process in serving if process.name() == "nginx"), None)


def test_an_nginx_that_is_killed_however_often_is_started_again_and_costs_no_round(deployment: Deployment) -> None:
    said = "nginx ended with status -9: starting another"
    before = deployment.log("coordinator").count(said)
    run = Live(deployment, "door", rounds=4)
    run.wait_for("round-closed", 1)
    for _ in range(3):
        killed = door(deployment)
        assert killed
        killed.kill()
        until(lambda killed=killed: door(deployment) not in (killed, None), deployment.folder / "coordinator.log")
    records = run.finish()
    assert deployment.log("coordinator").count(said) == before + 3
    assert [record.attempt for record in records] == [1] * 4


def served(deployment: Deployment, *renew: object) -> None:
    """Make a certificate, and wait until the coordinator serves it."""
    times = deployment.log("coordinator").count("nginx serves the new certificate")
    world_command(*renew)
    log = deployment.folder / "coordinator.log"
    until(lambda: deployment.log("coordinator").count("nginx serves the new certificate") > times, log)


def test_an_expired_certificate_keeps_nodes_out_until_it_is_renewed(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    renew = ("deploy", "init", deployment.folder / "federation.toml", "--out", deployment.coordinator)
    with monkeypatch.context() as patched:
        patched.setattr(certificates, "SERVER_DAYS", -0.5)
        time.sleep(60)  # a SuperNode that ends sooner ends its node
        (deployment.coordinator / "server.pem").unlink()  # one that lasts is left as it is
        served(deployment, *renew)
    try:
        checked = foedus("doctor", deployment.node("medical"), "--json")
        run = Live(deployment, "expired", rounds=1, **{"bind-timeout": 400.0})  # nodes ask less and less often
        time.sleep(20)
        assert not run.events("round-started")
    finally:
        served(deployment, *renew)
    assert [check["name"] for check in checked.json["checks"] if not check["ok"]], checked.out
    assert run.names(run.finish()[0]) >= {"coding"}


def test_a_node_whose_clock_is_off_by_an_hour_is_refused_and_doctor_says_so(deployment: Deployment) -> None:
    if not (faketime := shutil.which("faketime")):
        pytest.skip("needs libfaketime (Debian: apt-get install faketime)")
    home = deployment.folder / "clock"
    home.mkdir()
    node = deployment.node("medical")
    command = [faketime, "-f", "-1h", *script("flower-supernode"), "--superlink", f"localhost:{deployment.port}"]
    command += ["--root-certificates", str(deployment.certificate), "--port", str(free_port())]
    command += ["--auth-supernode-private-key", str(node / "node")]
    with (deployment.folder / "clock.log").open("wb") as log:
        process = subprocess.Popen(command, env={**os.environ, **flower_environment(home)}, stdout=log, stderr=log)
    try:
        process.wait(timeout=120)
    finally:
        process.kill()
    assert process.returncode != 0 or "terminated" in deployment.log("clock"), deployment.log("clock")[-2000:]


def test_a_console_that_is_killed_leaves_its_run_to_finish(deployment: Deployment) -> None:
    state = State(deployment.world.state)
    before = {run.name for run in state.runs()}
    console = started("run", "--federation", deployment.coordinator, "--rounds", 3, "--json")
    log = deployment.folder / "coordinator.log"
    until(lambda: len({run.name for run in state.runs()} - before) == 1, log, 2)
    (name,) = {run.name for run in state.runs()} - before
    console.kill()
    console.communicate()
    assert deployment.end(name)["event"] == "finished"
    report = foedus("status", name, "--state", deployment.world.state, "--json").json
    assert (report["status"], len(report["rounds"])) == ("completed", 3)
    assert foedus("verify", name, "--state", deployment.world.state, "--json").json["ok"]
