"""A resident worker answers with the installed ClientApp, by this machine's settings alone."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_disk

from client_app import worker
from client_app.runtime import Runtime
from console.backends.app_folder import stage
from core import keys
from core.deployment import NodeSettings
from core.messages.queries import Bind
from tests import federation as f
from tests.client_app.supernode import SECRET, heartbeat, supernode


def test_memory_is_given_back_once_after_an_idle_time_and_again_after_the_next() -> None:
    now, given_back = [0.0], list[float]()
    idle = worker.Idle(10.0, lambda: given_back.append(now[0]), lambda: now[0])
    for second in range(40):
        now[0] = float(second)
        idle.go_on()
        if second == 20:
            idle.end()
    assert given_back == [10.0, 30.0]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NodeSettings]:
    """A node's settings; its worker looks three times for a message before the node dies."""
    keys.create(tmp_path / "own.key")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "medical.jsonl").write_text(
        "".join(f'{{"question": "{number}?", "answer": "{number}"}}\n' for number in range(10))
    )
    (tmp_path / "node.toml").write_text(
        'organisation = "medical"\nsuperlink = "localhost:1"\ndata = "data"\nkey-file = "own.key"\n'
        f'pin-coordinator = "{f.COORDINATOR.address}"\n'
    )
    found = NodeSettings.read(tmp_path)
    found.state.mkdir()
    found.worker_secret.write_bytes(SECRET)
    parents = iter([7, 7, 7, 1])  # the node, which then has died
    monkeypatch.setattr(os, "getppid", lambda: next(parents))
    monkeypatch.setattr(worker, "_POLL_SECONDS", 0.0)
    monkeypatch.setattr(worker, "Runtime", partial(Runtime, _heartbeat=heartbeat()))
    yield found
    assert not list(parents)


def test_a_worker_binds_the_organisation_of_its_own_settings_and_ends_with_its_node(
    settings: NodeSettings, tmp_path: Path
) -> None:
    with supernode(build_fab_from_disk(stage(tmp_path / "app"))) as node:
        node.send(Bind(f.asked(f.other("challenge")), f.CHAIN).to_content())
        worker.work(settings, node.runtime.address)
        assert not node.reply().has_error()
        assert keys.read(tmp_path / "own.key").address.encode() in node.pushed()


def test_a_worker_that_refuses_another_app_says_whose_it_is(settings: NodeSettings, tmp_path: Path) -> None:
    app = stage(tmp_path / "app")
    with (app / "client_app" / "app.py").open("a") as code:
        code.write("\n")
    with supernode(build_fab_from_disk(app)) as node:
        node.send(Bind(f.asked(f.other("challenge")), f.CHAIN).to_content())
        worker.work(settings, node.runtime.address)
        assert node.reply().error.reason.startswith("medical: app: expected that of this node")
