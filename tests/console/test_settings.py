from dataclasses import replace
from pathlib import Path

import pytest

from console.settings import DEFAULTS, absolute, build, restored, saved
from core.errors import ConfigError, UsageError
from core.storage.state_folder import State


def test_what_is_nearer_wins(tmp_path: Path) -> None:
    config = tmp_path / "x.toml"
    config.write_text("rounds = 5\nrank = 16\nseed = 9\n", encoding="utf-8")
    found = build({"rank": 4, "seed": 8}, ["seed=3"], config)
    assert (found.rounds, found.rank, found.seed) == (5, 4, 3)
    assert found == replace(DEFAULTS, rounds=5, rank=4, seed=3)


def test_a_byte_order_mark_is_no_part_of_a_file_of_settings(tmp_path: Path) -> None:
    config = tmp_path / "x.toml"
    config.write_bytes(b"\xef\xbb\xbfrounds = 5\r\n")
    assert build({}, [], config).rounds == 5
    config.write_bytes("rounds = 5".encode("utf-16"))
    with pytest.raises(UsageError, match=r"x\.toml: expected a TOML of settings, got .*utf-8"):
        build({}, [], config)


def test_an_option_that_was_not_given_changes_nothing() -> None:
    assert build({"rounds": None, "base": None}, [], None) == DEFAULTS


@pytest.mark.parametrize(
    ("assignment", "name", "value"),
    [
        ("gradient-checkpointing=true", "gradient_checkpointing", True),
        ("alpha=4", "alpha", 4.0),
        ("learning-rate=1e-4", "learning_rate", 1e-4),
        ("trackers=tensorboard,wandb", "trackers", "tensorboard,wandb"),
        ("partition=column=label", "partition", "column=label"),
    ],
)
def test_a_set_value_has_its_settings_type(assignment: str, name: str, value: object) -> None:
    got = getattr(build({}, [assignment], None), name)
    assert (got, type(got)) == (value, type(value))


def test_paths_are_made_absolute_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("llama", "medals"):
        (tmp_path / name).mkdir()
    assert absolute("data", "orgs") == str(tmp_path / "orgs")
    assert absolute("data", "hf:./orgs") == f"hf:{tmp_path}/orgs"
    assert absolute("data", "hf:medals") == f"hf:{tmp_path}/medals"
    assert absolute("data", f"hf:{tmp_path}") == f"hf:{tmp_path}"
    assert absolute("data", "hf:~/orgs") == f"hf:{Path.home()}/orgs"
    assert absolute("base", "llama") == str(tmp_path / "llama")
    for key, value in (("data", "hf:medal"), ("base", "foedus-tiny"), ("base", "owner/name"), ("data", "")):
        assert absolute(key, value) == value


def test_a_run_is_remembered_as_it_was_started(tmp_path: Path) -> None:
    state = State(tmp_path / "state")
    settings = replace(DEFAULTS, run="one", state=str(state.folder), rounds=9)
    state.remember(settings)
    state.remember(replace(settings, rounds=1))
    assert saved(state, "one") == settings


def test_a_state_folder_may_be_moved(tmp_path: Path) -> None:
    State(tmp_path / "old").remember(replace(DEFAULTS, run="one", state=str(tmp_path / "old")))
    (tmp_path / "old").rename(tmp_path / "new")
    assert saved(State(tmp_path / "new"), "one").state == str(tmp_path / "new")


def test_a_run_that_nobody_started_has_no_settings(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'two'"):
        saved(State(tmp_path), "two")


def test_a_setting_nobody_knows_is_named() -> None:
    with pytest.raises(ConfigError, match="--set: expected a setting, got 'learning_rate': did you mean learning-rate"):
        build({}, ["learning_rate=1"], None)


def test_a_run_goes_on_with_the_base_that_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    state = State(tmp_path / "state")
    state.remember(replace(DEFAULTS, run="one", base="/srv/gone"))
    assert restored(state, "one").base == "/srv/gone"
    (tmp_path / "mine").mkdir()
    assert restored(state, "one", "mine").base == str(tmp_path / "mine")
