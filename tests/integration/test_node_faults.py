"""What happens to an organisation's machine while a federation trains: the others go on, and it comes back."""

import signal
import time

import pytest

from core import keys
from core.canonical import Address
from tests.integration.deployed import PRIVILEGED, Deployment
from tests.integration.faults import Live, fill, small_disk, stopped
from tests.nginx import needs_nginx

pytestmark = [pytest.mark.slow, pytest.mark.chain, needs_nginx]


def test_a_node_that_stands_still_for_longer_than_the_grace_is_late_and_comes_back(deployment: Deployment) -> None:
    run = Live(deployment, "still", rounds=8)
    run.wait_for("round-started", 2)
    with stopped([deployment.command("node", deployment.node("medical"))]):
        run.wait_for("late")
    run.wait_for("round-closed", 4)
    records = run.finish()
    assert {"medical"} in [run.late(record) for record in records]
    assert all(run.names(record) >= {"coding", "financial"} for record in records)
    assert run.rejected("medical") == set()


def test_a_worker_that_is_killed_in_training_costs_its_own_update_alone(deployment: Deployment) -> None:
    run = Live(deployment, "killed", rounds=4, **{"local-steps": 40})
    run.wait_for("round-started", 2)
    (worker,) = deployment.workers("medical")
    ready = deployment.log("node-medical").count("worker ready")
    worker.kill()
    deployment.wait_for_worker("medical", ready + 1)
    records = run.finish()
    assert [run.names(record) >= {"coding", "financial"} for record in records] == [True] * 4
    assert "The worker ended with status -9: starting another" in deployment.log("node-medical")


def test_a_node_that_is_killed_and_started_at_once_comes_back_by_itself(deployment: Deployment) -> None:
    ready = deployment.log("node-medical").count("worker ready")
    deployment.command("node", deployment.node("medical")).kill()
    time.sleep(3)
    deployment.start_again("node", deployment.node("medical"), "medical")
    deployment.wait_for_worker("medical", ready + 1)
    run = Live(deployment, "back", rounds=1)
    assert run.names(run.finish()[0]) == {"coding", "financial", "medical"}


def test_a_signer_that_is_killed_costs_its_organisation_the_rounds_until_it_is_back(deployment: Deployment) -> None:
    run = Live(deployment, "unsigned", rounds=8)
    run.wait_for("round-closed", 2)
    home = deployment.signer("medical")
    deployment.command("signer", home).kill()
    run.wait_for("rejected")
    deployment.start_again("signer", home, "medical")
    records = run.finish()
    assert run.rejected("medical") == {"client-error: usage"}
    assert "expected an answer" in deployment.log("node-medical")
    assert all(run.names(record) >= {"coding", "financial"} for record in records)


def test_half_of_the_organisations_cut_off_hold_the_round_and_lose_nothing(deployment: Deployment) -> None:
    run = Live(deployment, "cut", rounds=3)
    run.wait_for("round-closed", 1)
    away = [deployment.command("node", deployment.node(name)) for name in ("coding", "medical")]
    with stopped(away):
        run.wait_for("round-started", 2)
        time.sleep(20)
        assert len(run.events("round-closed")) <= 2
    records = run.finish()
    assert [record.attempt for record in records] == [1, 1, 1]
    assert all(len(record.admitted) >= 2 for record in records)


def test_a_node_whose_data_are_gone_speaks_for_nobody_and_the_others_go_on(deployment: Deployment) -> None:
    settings, name = deployment.node("medical") / "node.toml", "medical"
    before = settings.read_text()
    settings.write_text(before.replace(str(deployment.world.data), str(deployment.folder / "gone")))
    try:
        again(deployment, name)
        run = Live(deployment, "gone", rounds=2, organisations=2)
        records = run.finish()
    finally:
        settings.write_text(before)
        again(deployment, name)
    assert [run.names(record) for record in records] == [{"coding", "financial"}] * 2
    (told,) = run.events("bind-failed")
    assert told["detail"] == "data"
    assert f"{deployment.folder / 'gone'}" in deployment.log("node-medical")


@pytest.mark.skipif(not PRIVILEGED, reason="needs root, to mount a file system")
def test_a_node_whose_memory_is_full_is_rejected_and_goes_on_by_itself_when_there_is_room(
    deployment: Deployment,
) -> None:
    run = Live(deployment, "full-memory", rounds=12)
    run.wait_for("round-closed", 1)
    memory = deployment.node("medical") / "state" / "witness"
    with small_disk(memory, 1):
        filler = fill(memory)
        run.wait_for("rejected", 2, organisation=address_of(deployment, "medical"))
        filler.unlink()
        records = run.finish()
    assert "No space left on device" in deployment.log("node-medical")
    assert run.rejected("medical") == {"client-error: system"}
    assert "medical" in run.names(records[-1])
    assert [record.attempt for record in records] == [1] * len(records)


def address_of(deployment: Deployment, name: str) -> Address:
    """Who an organisation is, by the key in its signer's folder."""
    return keys.read(deployment.signer(name) / "key").address


def again(deployment: Deployment, name: str) -> None:
    """Kill an organisation's worker, which its node starts again with the settings of now."""
    ready = deployment.log(f"node-{name}").count("worker ready")
    for worker in deployment.workers(name):
        worker.send_signal(signal.SIGKILL)
    deployment.wait_for_worker(name, ready + 1)
