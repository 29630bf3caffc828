"""`foedus prune`: less on the disk, and everything that a run is for goes on."""

from pathlib import Path

import pytest

from core.storage.lock import locked
from core.storage.state_folder import State
from tests.commands import World, foedus

pytestmark = pytest.mark.chain


@pytest.fixture
def world(base: Path, data: Path, tmp_path: Path) -> World:
    made = World(base, data, tmp_path / "state")
    assert made.inline("--participation", "all", rounds=4).code == 0
    return made


def test_a_pruned_run_verifies_erases_and_serves_as_before(world: World) -> None:
    run = State(world.state).existing()
    dry = world.command("prune", "--keep", 2, "--dry-run").json
    assert (len(dry["removed"]), dry["dry_run"]) == (2, True)
    assert world.command("verify").json["checked"].get("pruned aggregates") is None
    done = world.command("prune", "--keep", 2).json
    assert done["removed"] == dry["removed"]
    assert done["bytes"] == dry["bytes"] > 0
    report = world.command("verify", "--strict").json
    assert (report["ok"], report["recomputed"], report["checked"]["pruned aggregates"]) == (True, 4, 2)
    assert world.command("prune", "--keep", 2).json["removed"] == []
    assert world.command("status").json["rounds"][0]["aggregate"] == run.lineage(0)[0].value.aggregate
    forgotten = world.command("forget", "--organisation", "medical", "--method", "remove", "--backend", "inline").json
    assert world.command("check", forgotten["certificate"]).code == 0
    assert world.command("verify").json["ok"]


def test_a_run_that_does_not_hold_or_is_being_written_is_left_alone(world: World) -> None:
    state = State(world.state)
    run = state.existing()
    with locked(state.lock(run.name)):
        assert "is being written by process" in world.command("prune").error
    next((run.folder / "salts").iterdir()).unlink()
    done = world.command("prune", "--keep", 2)
    assert done.code == 1
    assert "expected a run that holds, got" in done.error
    assert not (run.folder / "pruned.json").exists()


def test_it_says_in_words_what_went_and_where_that_stands(world: World) -> None:
    run = State(world.state).existing()
    said = foedus("prune", "--keep", 2, "--state", world.state).out
    assert f"Run {run.name}: 2 aggregates, " in said
    assert str(run.folder / "pruned.json") in said
