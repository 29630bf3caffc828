"""A coordinator that is watched: what it says of the newest run, its anchors, the chain and the certificate."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from console.backends.children import Children, Kept, free_port
from console.monitoring import coordinator as module
from console.monitoring.coordinator import CoordinatorMonitor
from core.deployment import CoordinatorSettings
from core.storage.events import EventLog
from core.storage.lock import locked
from core.storage.state_folder import State
from tests.chain.test_balance import chain
from tests.commands import World
from tests.console.deployments.founded import FILE, founded
from tests.console.monitoring.test_node import SLEEP, values


@pytest.fixture
def watched(
    finished: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[CoordinatorMonitor, State]]:
    """A coordinator whose newest run has two rounds, and its state; the SuperLink answers."""
    found = founded(tmp_path)
    state = found.folder / "state"
    state.rmdir()
    shutil.copytree(finished.state, state)
    settings = CoordinatorSettings.read(found.folder)
    settings.state.mkdir()
    monkeypatch.setattr(module, "answers", lambda *_: True)
    with Children() as children:
        yield CoordinatorMonitor(settings, Kept(children, SLEEP, {}).process, tmp_path / "link.pem"), State(state)


def test_a_coordinator_says_how_its_newest_run_stands(watched: tuple[CoordinatorMonitor, State]) -> None:
    monitor, state = watched
    found, run = monitor.look(), state.existing()
    got = values(found)
    assert found.problems == []
    assert (found.facts["run"], found.facts["condition"], found.facts["anchors_pending"]) == (run.name, "completed", 0)
    assert (got["foedus_run_round"], got["foedus_run_rounds"], got["foedus_run_anchors_pending"]) == (2, 2, 0)
    assert (got["foedus_run_condition completed"], got["foedus_run_condition running"]) == (1, 0)
    names = run.genesis.names.values()
    admitted = sum(len(signed.value.admitted) for signed in run.records())
    assert sum(got.get(f"foedus_run_updates {name} admitted", 0) for name in names) == admitted > 0
    assert all(got[f"foedus_run_loss {name}"] > 0 for name in names)
    assert got["foedus_coordinator_superlink_up"] == 1
    assert got["foedus_coordinator_certificate_expiry_timestamp_seconds"] > got["foedus_run_started_timestamp_seconds"]
    assert values(monitor.look()) == got | {"foedus_coordinator_disk_free_bytes": pytest.approx(0, abs=1e15)}


def test_a_run_that_nobody_writes_and_rounds_without_an_anchor_are_problems(
    watched: tuple[CoordinatorMonitor, State],
) -> None:
    monitor, state = watched
    run = state.existing()
    EventLog(state.events(run.name)).write("round-started", round=3, rounds=3, asked=[])
    run.queue.unlink()
    for path in (run.folder / "records").iterdir():
        os.utime(path, (1000, 1000))
    dead, late = monitor.look().problems
    resume = f"foedus run --federation {monitor.settings.folder} --resume {run.name}"
    assert dead == f"run {run.name} is dead: {resume}"
    assert late.startswith("2 rounds have no anchor, the oldest for ")
    with locked(state.lock(run.name)):
        assert [problem for problem in monitor.look().problems if "dead" in problem] == []


def test_a_superlink_that_is_away_and_a_certificate_that_has_ended_are_problems(
    watched: tuple[CoordinatorMonitor, State], monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor, _ = watched
    monkeypatch.setattr(module, "answers", lambda *_: False)
    assert monitor.look().problems == [f"the SuperLink does not answer on 127.0.0.1:{monitor.settings.control_port}"]
    monkeypatch.setattr(module.time, "time", lambda: 10.0**10)
    expired = "server.pem has expired: foedus deploy init makes another"
    assert [problem for problem in monitor.look().problems if expired in problem]


@pytest.mark.parametrize(
    ("result", "up", "balance"), [(hex(3 * 10**18), 1, 3.0), (None, 0, None), (["odd"], 0, None), ("0xzz", 0, None)]
)
def test_a_chain_is_asked_whether_it_answers_and_what_the_account_holds(
    watched: tuple[CoordinatorMonitor, State], result: object, up: int, balance: float | None
) -> None:
    monitor, _ = watched
    with chain(result) as url:
        (monitor.settings.folder / "federation.toml").write_text(FILE.replace("base =", f'chain = "{url}"\nbase ='))
        found = monitor.look()
    got = values(found)
    assert (got["foedus_chain_up"], got.get("foedus_chain_balance_ether")) == (up, balance)
    assert [problem for problem in found.problems if "secret" in problem] == []
    assert len(found.problems) == (not up)


def test_a_chain_that_is_not_there_is_a_problem(watched: tuple[CoordinatorMonitor, State]) -> None:
    monitor, _ = watched
    url = f"http://127.0.0.1:{free_port()}"
    (monitor.settings.folder / "federation.toml").write_text(FILE.replace("base =", f'chain = "{url}"\nbase ='))
    assert monitor.look().problems == [f"the chain {url} does not answer"]


def test_a_damaged_record_is_a_problem_and_the_rest_is_still_told(watched: tuple[CoordinatorMonitor, State]) -> None:
    monitor, state = watched
    next((state.existing().folder / "records").iterdir()).write_bytes(b"{")
    found = monitor.look()
    assert found.problems[0].startswith("the newest run cannot be read: ")
    assert "foedus_coordinator_superlink_up" in values(found)


def test_settings_that_are_damaged_while_it_runs_are_a_problem(
    watched: tuple[CoordinatorMonitor, State],
) -> None:
    monitor, _ = watched
    assert monitor.look().problems == []
    (monitor.settings.folder / "federation.toml").write_text("[")
    found = monitor.look()
    assert found.problems[0].startswith("the federation's chain cannot be read: ")
    assert "foedus_run_round" in values(found)


def test_a_coordinator_without_a_federation_has_no_run_to_tell_of(
    watched: tuple[CoordinatorMonitor, State],
) -> None:
    monitor, _ = watched
    (monitor.settings.folder / "federation.toml").unlink()
    assert not [name for name in values(monitor.look()) if name.startswith(("foedus_run", "foedus_chain"))]


def test_the_process_that_is_watched_is_one_that_lives(watched: tuple[CoordinatorMonitor, State]) -> None:
    monitor, _ = watched
    monitor.superlink.kill()
    monitor.superlink.wait()
    assert monitor.look().problems == [f"the SuperLink does not answer on 127.0.0.1:{monitor.settings.control_port}"]
