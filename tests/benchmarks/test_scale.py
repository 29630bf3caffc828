"""How a federation grows: the data divide, figures are of rounds, and plain Flower takes the same steps."""

from dataclasses import replace
from pathlib import Path

import pytest
from flwr.supercore.object_ref import validate

from benchmarks import plain_flower, scale
from benchmarks.scale import Point
from core.config import RunConfig
from llm.data import read_data


def test_the_data_of_a_point_divide_among_its_organisations(tmp_path: Path) -> None:
    point = Point(30, 10, 2, tmp_path)
    point.write_data()
    found = read_data(RunConfig.from_flat(RunConfig().to_flat() | point.settings))
    assert len(found.organisations) == 30
    assert {record.domain for record in found.validation} == {f"kind-{number}" for number in range(scale.LABELS)}
    assert replace(point, organisations=5).settings["fraction"] == 1.0


def test_seconds_of_a_round_are_those_until_its_close_without_the_first() -> None:
    events = [
        {"event": "round-started", "time": 10.0, "round": 1, "asked": ["a"]},
        {"event": "round-closed", "time": 40.0, "round": 1},
        {"event": "round-started", "time": 50.0, "round": 2, "asked": ["a", "b"]},
        {"event": "round-closed", "time": 52.0, "round": 2},
        {"event": "evaluated", "time": 58.0, "round": 2},
        {"event": "round-started", "time": 60.0, "round": 3, "asked": ["a", "b", "c", "d"]},
        {"event": "round-closed", "time": 64.0, "round": 3},
    ]
    assert scale.seconds_of(events, 3.0) == {"asked": 3.0, "seconds_to_first_round": 7.0, "seconds_a_round": 3.0}


def test_a_round_of_messages_is_one_without_the_steps_that_both_sides_train() -> None:
    found = scale.compared({"seconds_a_round": 6.0}, {"seconds_a_round": 8.0, "training_seconds": 5.0})
    assert found == {"plain_seconds": 8.0, "ratio": 0.75, "messages_seconds": 1.0}


def test_the_plain_app_is_one_that_flower_packs(tmp_path: Path) -> None:
    settings = RunConfig.from_flat(RunConfig().to_flat() | Point(4, 2, 2, tmp_path).settings)
    app = plain_flower.stage(tmp_path / "app", settings, tmp_path / "times")
    assert {path.name for path in app.iterdir()} == {"plain.py", "pyproject.toml"}
    for reference in ("plain:server", "plain:client"):
        valid, error = validate(reference, check_module=True, project_dir=app)
        assert valid, error


@pytest.mark.slow
@pytest.mark.chain
def test_a_point_is_measured_on_both_sides(tmp_path: Path) -> None:
    point = Point(4, 2, 2, tmp_path)
    own, plain = point.measured(), point.plain()
    assert own["audited"]
    assert own["asked"] == pytest.approx(2, abs=1)
    assert own["server_memory_mib"] > 10
    assert min(own[f"{name}_bytes"] for name in ("update", "genesis", "opening")) > 0
    assert min(own[name] for name in ("seconds_a_round", "opening_gas", "round_gas")) > 0
    assert 0 < plain["training_seconds"] < plain["seconds_a_round"]
