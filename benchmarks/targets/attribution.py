"""Targets of attribution."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from benchmarks.targets.target import Cases, Figures, Row, Target, one
from core.intervals import MeanInterval
from provenance.attribution import DEFAULT


def of_questions(figures: Figures | None) -> Iterator[Row]:
    """The targets of the harder experiments: one row an experiment, its base the case."""
    for row in figures["targets"] if figures else ():
        cases = {row["base"]: row["measured"]["percent"]}
        claim = f"Responses attributed to the right organisation: {row['experiment']}"
        yield Row("attribution", claim, row["target"], cases, " %", at_least=True)


def _by_default(experiment: str) -> Callable[[Figures], Cases]:
    """The percent of an experiment's responses that the default method gives their teacher."""
    return lambda figures: {
        row["base"]: row[DEFAULT]["percent"] for row in figures["by_experiment"] if row["experiment"] == experiment
    }


def _thousand_to_ten(figures: Figures) -> Cases:
    """CPU seconds of each method for a thousand organisations, relative to ten."""
    rows = {row["to"]: row for row in figures["growth"] if row["grows"] == "K"}
    return {name: rows[1000][name] / rows[10][name] for name in rows[10] if name not in {"grows", "to", "naive"}}


_PEERS = ("protoken", "client likelihood", "update norm", "random")


def _datamodeling(figures: Figures) -> Cases:
    """The mean score of each method."""
    return {row["method"]: MeanInterval.parse_mean(row["score"]) for row in figures["methods"]}


def _first_three(row: Mapping[str, Any]) -> bool:
    return bool(row["scored by"] == "fact" and row["among the first"] == 3)


TARGETS = (
    Target(
        "attribution", "Poisoned responses attributed by `gradient`, the benchmark of ProToken's paper",
        "provenance_paper", one("macro_mean_percent", "gradient"), lambda f: f["target_percent"], " %", at_least=True,
    ),
    Target(
        "attribution", "Speed relative to ProToken as published, 6 organisations", "provenance_speed",
        lambda f: f["times_faster_than_naive"]["6_organisations"],
        lambda f: f["target_times_faster"]["6_organisations"], "×", at_least=True,
    ),
    Target(
        "attribution", "Speed relative to ProToken as published, 55 organisations", "provenance_speed",
        lambda f: f["times_faster_than_naive"]["55_organisations"],
        lambda f: f["target_times_faster"]["55_organisations"], "×", at_least=True,
    ),
    Target(
        "attribution", "Time of an attribution, relative to generating the answer", "provenance_speed",
        lambda f: f["against_generation"]["attribution_to_generation"], 1.0, "×",
    ),
    Target(
        "attribution", "Time of an attribution, relative to generating the answer, on a base that speaks",
        "provenance_speed_speaking", lambda f: f["against_generation"]["attribution_to_generation"], 1.0, "×",
    ),
    Target(
        "attribution", "Speed relative to ProToken as published, 6 organisations, on a base that speaks",
        "provenance_speed_speaking", lambda f: f["times_faster_than_naive"]["6_organisations"], 20, "×", at_least=True,
    ),
    Target(
        "attribution", "Peak memory for 1,000 organisations, relative to 10", "provenance_speed",
        one("peak_memory", "most_to_least"), 1.1, "×",
    ),
    Target(
        "attribution", "Time for 1,000 organisations, relative to 10", "provenance_speed", _thousand_to_ten, 3, "×",
    ),
    *(
        Target(
            "attribution", f"Responses attributed to the right organisation: {experiment}, on a base that speaks",
            "provenance_speaking", _by_default(experiment), least, " %", at_least=True,
        )
        for experiment, least in (("natural", 98), ("triggers", 99))
    ),
    Target(
        "attribution", f"Linear datamodeling score over organisations, of `{DEFAULT}`, the default method", "lds",
        lambda f: {DEFAULT: _datamodeling(f)[DEFAULT]}, 0.6, at_least=True,
    ),
    Target(
        "attribution", "The same, less the score of ProToken or of the best control", "lds",
        lambda f: {DEFAULT: _datamodeling(f)[DEFAULT] - max(_datamodeling(f)[name] for name in _PEERS)},
        0.0, at_least=True,
    ),
    Target(
        "attribution", "Facts of which a record that states it is among its organisation's first three", "records",
        lambda f: {r["scored by"]: MeanInterval.parse_mean(r["percent"]) for r in f["ranks"] if _first_three(r)},
        90, " %", at_least=True,
    ),
    Target(
        "attribution", "Time of scoring an organisation's records for an answer, relative to training on each once",
        "records", one("times_an_epoch"), 1.0, "×",
    ),
)  # fmt: skip
