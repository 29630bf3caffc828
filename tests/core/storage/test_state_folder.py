"""Where things lie in a state folder."""

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from core.canonical import from_json
from core.config import RunConfig
from core.errors import UsageError
from core.keys import create
from core.storage.events import EventLog
from core.storage.lock import locked
from core.storage.state_folder import State, new_run_id
from tests import federation as f


def test_the_state_folder_is_the_one_that_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOEDUS_HOME", str(tmp_path / "env"))
    assert State.of(RunConfig(state=str(tmp_path / "set"))).folder == tmp_path / "set"
    assert State.of(RunConfig()).folder == tmp_path / "env"
    monkeypatch.delenv("FOEDUS_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    assert State.of(RunConfig()).folder == tmp_path / "home" / ".foedus"


@pytest.mark.parametrize("name", ["", ".", "..", "../up", "a/b", ".hidden", "-option", "a" * 65, "a b", "ü", "a\n"])
def test_a_run_id_that_is_no_folder_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="run id: expected"):
        State(tmp_path).run(name)


def test_the_newest_run_is_the_one_that_started_last(tmp_path: Path) -> None:
    state = State(tmp_path)
    for when, name in enumerate(("z-first", "a-second")):
        state.run(name).begin(f.genesis(), f.readers(f.genesis()))
        os.utime(state.run(name).folder / "genesis.json", (when, when))
    state.run("never-started").folder.mkdir()
    (tmp_path / "runs" / "a-file").touch()
    assert [run.name for run in state.runs()] == ["z-first", "a-second"]
    assert state.existing().name == "a-second"
    assert state.existing("z-first").name == "z-first"


def test_a_run_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    state = State(tmp_path)
    with pytest.raises(UsageError, match=r"no run in .*: `foedus run` makes one"):
        state.existing()
    with pytest.raises(UsageError, match=r"expected one of the runs none in .*, got 'x'"):
        state.existing("x")
    state.run("one").begin(f.genesis(), f.readers(f.genesis()))
    with pytest.raises(UsageError, match=r"expected one of the runs one in .*, got 'x'"):
        state.existing("x")


def test_everything_but_the_record_lies_outside_the_runs(tmp_path: Path) -> None:
    state = State(tmp_path)
    for path in (state.events("one"), state.settings("one"), state.lock("one")):
        assert path.is_relative_to(tmp_path)
        assert not path.is_relative_to(tmp_path / "runs")
        assert path.stem == "one"


def test_new_run_ids_differ_and_are_run_ids(tmp_path: Path) -> None:
    names = {new_run_id() for _ in range(20)}
    assert len(names) == 20
    assert all(State(tmp_path).run(name).name == name for name in names)


def test_a_run_is_opened_with_the_store_and_the_key_that_it_was_started_with(tmp_path: Path) -> None:
    state, key = State(tmp_path), create(tmp_path / "key")
    genesis = f.genesis(coordinator=key.address)
    config = RunConfig(run="one", store=f"memory://{tmp_path.name}/", coordinator_key=str(tmp_path / "key"))
    state.remember(config)
    state.run("one", config).begin(genesis, replace(f.readers(genesis), coordinator=key.public))
    for run in (state.existing(), state.existing("one"), state.run("one")):
        assert run.blobs.where == f"memory://{tmp_path.name}/one"
        assert run.key == key
        assert run.artifacts.open_document("genesis.json") == (run.folder / "genesis.json").read_bytes()


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702, 0o775])
def test_a_state_folder_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(mode)
    with pytest.raises(UsageError, match=f"that you alone can write, got mode {mode:04o}: chmod 700"):
        State.of(RunConfig(state=str(tmp_path / "state")))


def test_everything_in_a_state_folder_is_private(tmp_path: Path) -> None:
    os.umask(0o022)
    state = State.of(RunConfig(state=str(tmp_path / "state")))
    run = state.run("one")
    run.begin(f.genesis(), f.readers(f.genesis()))
    state.remember(RunConfig(run="one"))
    EventLog(state.events("one")).write("started")
    with locked(state.lock("one")):
        found = [state.folder, *state.folder.rglob("*")]
    assert len(found) > 8
    assert {stat.S_IMODE(path.stat().st_mode) for path in found} == {0o700, 0o600}


def test_a_run_goes_on_with_another_key_of_its_coordinator(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.remember(RunConfig(run="one", rounds=9, coordinator_key="/old.key"))
    state.change_key("one", "/new.key", 3)
    saved = RunConfig.from_flat(from_json(state.settings("one").read_bytes()))
    assert (saved.coordinator_key, saved.rounds, saved.organisations) == ("/new.key", 9, 3)
