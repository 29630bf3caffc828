"""A sweep against a loop: its file has eight trials of which one fails, and figures are of what it says."""

import os
from pathlib import Path
from typing import Any

import pytest

from benchmarks.sweep import RATES, Sweeping, figures, measured
from console.sweeps.trials import folder


def test_its_file_is_a_sweep_of_eight_that_differ_in_the_learning_rate(tmp_path: Path) -> None:
    trials = Sweeping(tmp_path / "some", 2, 1, stop="asha").trials
    assert [trial.varied for trial in trials] == [{"learning-rate": rate} for rate in RATES]
    assert len(trials) == 8
    assert {trial.settings["rounds"] for trial in trials} == {2}


def test_a_measurement_that_stopped_begins_anew_and_one_that_ended_is_not_repeated(tmp_path: Path) -> None:
    sweep = Sweeping(tmp_path / "some", 2, 1)
    (sweep.folder / "out").mkdir(parents=True)
    assert measured(sweep, lambda one: {"left": one.folder.exists()}) == {"left": False}
    assert measured(sweep, lambda _: {"left": None}) == {"left": False}


def test_a_kill_loses_the_seconds_of_the_trials_that_were_under_way(tmp_path: Path) -> None:
    sweep = Sweeping(tmp_path / "some", 2, 1)
    done, running, *_ = (folder(sweep.folder / "out", trial.name) for trial in sweep.trials)
    for place, name in ((done, "result.json"), (running, "printed")):
        place.mkdir(parents=True)
        (place / name).touch()
    os.utime(running / "printed", (100.0, 100.0))
    assert sweep.under_way(130.0) == [30.0]


def ended(best: float, seconds: float, *statuses: str) -> dict[str, Any]:
    trials = [
        {"settings": {"learning-rate": 0.1 * index}, "status": status, "figures": {"final-loss": 2.0}}
        for index, status in enumerate(statuses)
    ]
    return {
        "seconds": seconds,
        "trials": trials,
        "plotted": 1,
        "best": {"settings": {"learning-rate": best}, "mean": 2.0},
    }


def test_figures_say_how_trials_ended_and_what_each_kind_of_sweep_took() -> None:
    whole, killed = ended(0.1, 60.0, "done", "done", "failed"), ended(0.1, 80.0, "done", "stopped", "failed")
    found = figures({"seconds": 100.0}, {"whole": whole, "killed": killed | {"begun_anew": 2, "lost_seconds": 9.0}})
    assert found["of_loop"] == pytest.approx(0.6)
    first, second = found["sweeps"]
    assert [first[name] for name in ("done", "failed", "stopped", "begun_anew")] == [2, 1, 0, 0]
    assert [second[name] for name in ("done", "failed", "stopped", "begun_anew", "lost_seconds")] == [1, 1, 1, 2, 9.0]
    assert [row["status"] for row in found["trials"]] == ["done", "done", "failed"]
