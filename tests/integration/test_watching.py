"""A running deployment as Prometheus and health checks see it: real nodes, coordinator, chain and sockets."""

import json
import os
import signal
import tomllib
from pathlib import Path

import pytest

from tests.console.monitoring.test_server import asked, samples
from tests.integration.deployed import MEMBERS, Deployment, until
from tests.integration.faults import stopped
from tests.nginx import needs_nginx

pytestmark = [pytest.mark.slow, pytest.mark.chain, needs_nginx]


def metrics_of(folder: Path, file: str) -> str:
    """Where a part serves its metrics, by its settings."""
    return str(tomllib.loads((folder / file).read_text())["metrics"])


def healthy(listen: str) -> bool:
    return asked(listen, "/health")[0] == 200


def test_a_run_is_seen_by_prometheus_and_a_node_is_unhealthy_while_nothing_answers_it(
    deployment: Deployment,
) -> None:
    coordinator = metrics_of(deployment.coordinator, "coordinator.toml")
    nodes = {name: metrics_of(deployment.node(name), "node.toml") for name in MEMBERS}
    for listen in (coordinator, *nodes.values()):
        until(lambda listen=listen: healthy(listen), deployment.folder / "coordinator.log")
    deployment.start(deployment.app, "watched", quorum=3)
    assert deployment.end("watched")["event"] == "finished", deployment.log("coordinator")[-3000:]
    until(
        lambda: json.loads(asked(coordinator, "/health")[2]).get("run") == "watched",
        deployment.folder / "coordinator.log",
    )

    seen = samples(asked(coordinator, "/metrics")[2])
    assert seen["foedus_run_round"] == seen["foedus_run_rounds"] == [({}, 2.0)]
    assert ({"condition": "completed"}, 1.0) in seen["foedus_run_condition"]
    updates = {(labels["organisation"], labels["outcome"]): value for labels, value in seen["foedus_run_updates"]}
    assert updates == {(name, "admitted"): 2.0 for name in MEMBERS}
    assert {labels["organisation"] for labels, _ in seen["foedus_run_loss"]} == set(MEMBERS)
    assert seen["foedus_run_anchors_pending"] == [({}, 0.0)]
    assert (seen["foedus_chain_up"], seen["foedus_coordinator_superlink_up"]) == ([({}, 1.0)], [({}, 1.0)])
    assert 0 < seen["foedus_chain_balance_ether"][0][1] < 1000
    for name, listen in nodes.items():
        own = samples(asked(listen, "/metrics")[2])
        answers = {labels["outcome"]: value for labels, value in own["foedus_node_answers_total"]}
        assert answers["ok"] >= 4, name  # bound, agreed, and trained twice
        assert own["foedus_node_info"][0][0]["organisation"] == name

    (worker,) = deployment.workers("medical")
    os.kill(worker.pid, signal.SIGKILL)

    def restarts() -> float:
        found = samples(asked(nodes["medical"], "/metrics")[2])["foedus_node_restarts_total"]
        return next(value for labels, value in found if labels == {"process": "worker"})

    until(lambda: restarts() == 1, deployment.folder / "node-medical.log")

    with stopped([deployment.part_of("coordinator", deployment.coordinator, "nginx")]):
        until(lambda: not healthy(nodes["medical"]), deployment.folder / "node-medical.log")
        status, _, text = asked(nodes["medical"], "/health")
    assert status == 503
    assert json.loads(text)["problems"] == [f"the SuperLink behind localhost:{deployment.port} does not answer"]
    assert healthy(coordinator), "the SuperLink itself is well"
    until(lambda: healthy(nodes["medical"]), deployment.folder / "node-medical.log")
