"""A sweep's file: which trials it names, and what is refused."""

import math
from pathlib import Path
from typing import Any

import pytest

from console.sweeps.plan import Sweep, named, words
from core.config import RunConfig
from core.errors import ConfigError, FormatError, UsageError
from llm.model import ModelSpec, load
from server_app.founding import check_feasible

ROOT = Path(__file__).parents[3]


def test_every_combination_of_the_grid_has_every_seed() -> None:
    plan = Sweep.parse(
        {"seeds": [7, 8], "grid": {"rank": [2, 4], "rounds": [1, 2, 3]}, "settings": {"base": "foedus-tiny"}}
    )
    trials = plan.trials()
    assert [(t.settings["rank"], t.settings["rounds"], t.seed) for t in trials] == [
        (rank, rounds, seed) for rank in (2, 4) for rounds in (1, 2, 3) for seed in (7, 8)
    ]
    assert all(t.settings["base"] == "foedus-tiny" and t.settings["seed"] == t.seed for t in trials)
    assert len({t.name for t in trials}) == 12
    assert trials[0].label == "rank 2, rounds 1, seed 7"


def test_samples_are_the_same_for_the_same_file_and_within_their_ranges() -> None:
    given = {
        "samples": 40,
        "random": {
            "learning-rate": {"low": 1e-4, "high": 1e-2, "log": True},
            "rank": {"low": 2, "high": 8},
            "aggregation": ["frozen-a", "fedavg"],
        },
    }
    trials, again = Sweep.parse(given).trials(), Sweep.parse(given).trials()
    assert trials == again
    rates = [t.settings["learning-rate"] for t in trials]
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)
    # Evenly on a logarithmic scale: half of them lie below the middle one.
    assert 8 < sum(rate < math.sqrt(1e-4 * 1e-2) for rate in rates) < 32
    assert {type(t.settings["rank"]) for t in trials} == {int}
    assert {t.settings["aggregation"] for t in trials} == {"frozen-a", "fedavg"}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"figur": "seconds"}, "got 'figur'"),
        ({"rounds": 4}, "rounds: expected it in [settings], [grid] or [random], got it above them"),
        ({"grid": {"rank": [2], "figure": "seconds"}}, "figure: expected it above the first table, got it in [grid]"),
        ({"settings": {"seeds": [7]}}, "seeds: expected it above the first table, got it in [settings]"),
        ({"samples": -3, "random": {"rank": [1]}}, "expected samples from 0"),
        ({"figure": "loss"}, "figure: expected final-loss"),
        ({"stop": "soon"}, "stop: expected none, asha, median, got 'soon'"),
        ({"backend": 3}, "backend: expected"),
        ({"seeds": []}, "seeds: expected a list of different whole numbers"),
        ({"seeds": [7, 7]}, "seeds: expected a list of different whole numbers"),
        ({"seeds": 7}, "seeds: expected a list of different whole numbers"),
        ({"grid": [1]}, "expected a table [grid]"),
        ({"grid": {}}, "[grid]: expected a setting at least, got none"),
        ({"random": {}}, "[random]: expected a setting at least, got none"),
        ({"grid": {"rank": 4}}, "[grid] rank: expected a list of values, at least one, got 4"),
        ({"grid": {"rank": []}}, "[grid] rank: expected a list of values, at least one, got []"),
        ({"grid": {"seed": [1]}}, "seed: expected it as seeds"),
        ({"grid": {"rank": [1]}, "settings": {"rank": 2}}, "rank: expected it once"),
        ({"samples": 3}, "expected samples = N and [random] together"),
        ({"random": {"rank": [1]}}, "expected samples = N and [random] together"),
        ({"samples": 1, "random": {"rank": {"low": 1}}}, "[random] rank: expected a list, or low and high"),
        ({"samples": 1, "random": {"rank": {"low": 4, "high": 2}}}, "[random] rank: expected low below high"),
        ({"samples": 1, "random": {"rank": {"low": 0, "high": 2, "log": True}}}, "above 0 with log"),
        ({"samples": 1, "random": {"rank": {"low": 1, "high": 2, "log": 3}}}, "log to be true or false"),
        ({"samples": 1, "random": {"rank": {"low": -1e308, "high": 1e308}}}, "a range that numbers can span"),
        ({"samples": 1, "random": {"rank": {"low": "1", "high": 2}}}, "[random] rank: low: expected a number"),
        ({"cpus": 0}, "cpus: expected at least 0.01, got 0"),
        ({"gpus": -1}, "gpus: expected"),
        ({"cpus": "all"}, "cpus"),
        ({"samples": 2.5, "random": {"rank": [1]}}, "samples"),
        ({"grid": {"rank": list(range(101)), "rounds": list(range(101))}}, "at most 10,000 trials, got 10,201"),
    ],
)
def test_what_is_no_sweep_is_refused(data: dict[str, Any], expected: str) -> None:
    with pytest.raises(FormatError) as caught:
        Sweep.parse(data)
    assert expected in str(caught.value)


def test_settings_that_no_run_would_take_are_refused_before_any_runs() -> None:
    with pytest.raises(ConfigError, match="rank"):
        Sweep.parse({"grid": {"rank": [4, -1]}}).trials()
    with pytest.raises(ConfigError, match="'ranks'"):
        Sweep.parse({"grid": {"ranks": [4]}}).trials()


@pytest.mark.parametrize("stop", ["asha", "median"])
def test_trials_that_no_rule_could_stop_are_refused(stop: str) -> None:
    with pytest.raises(ConfigError, match=f"participation: expected all with stop {stop}, .* got round-robin"):
        Sweep.parse({"stop": stop, "grid": {"rank": [4]}}).trials()
    with pytest.raises(ConfigError, match="got random"):
        Sweep.parse({"stop": stop, "grid": {"participation": ["all", "random"]}}).trials()
    assert Sweep.parse({"stop": stop, "settings": {"participation": "all"}}).trials()


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent.toml: expected a TOML file, got No such file"):
        Sweep.read(tmp_path / "absent.toml")
    (tmp_path / "bad.toml").write_text("seeds = [7", encoding="utf-8")
    with pytest.raises(UsageError, match=r"bad.toml"):
        Sweep.read(tmp_path / "bad.toml")
    (tmp_path / "good.toml").write_text("seeds = [7]\n[grid]\nrank = [2]\n", encoding="utf-8")
    assert len(Sweep.read(tmp_path / "good.toml").trials()) == 1


def test_whatever_is_wrong_with_a_file_names_it(tmp_path: Path) -> None:
    wrong = (FormatError("no sweep"), ConfigError("no setting"), UnicodeDecodeError("utf-8", b"x", 0, 1, "no text"))
    for error in wrong:
        with pytest.raises(UsageError, match=r"^sweep .*some\.toml: .*no "), named(tmp_path / "some.toml"):
            raise error


def test_paths_are_absolute_since_trials_run_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (trial,) = Sweep.parse({"settings": {"data": "data"}}).trials()
    assert trial.settings["data"] == str(tmp_path / "data")


def test_settings_in_words() -> None:
    assert words({"rank": 2, "learning-rate": 0.00312345}) == "rank 2, learning-rate 0.00312"


@pytest.mark.parametrize("path", sorted((ROOT / "conf" / "sweeps").glob("*.toml")), ids=lambda path: path.stem)
def test_the_sweeps_that_come_along_can_be_run(path: Path) -> None:
    assert len(Sweep.read(path).trials()) > 1


def test_the_rules_that_are_compared_fit_the_base_and_the_samples() -> None:
    """`stack` grows with every update: with too high a rank its trials would fail."""
    for trial in Sweep.read(ROOT / "conf" / "sweeps" / "rules.toml").trials():
        config = RunConfig.from_flat(trial.settings)
        base = load(ModelSpec(config.base, "none", config.rank, config.alpha, blocks=config.target_blocks))
        check_feasible(config, base, 4)
