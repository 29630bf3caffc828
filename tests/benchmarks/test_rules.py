"""The comparison of aggregation rules on a base that speaks."""

import json
from pathlib import Path

import pytest

from benchmarks.rules import ALONE, CASES, SHAPE, Case, cases, measured, row
from benchmarks.targets import TARGETS
from core.aggregation import RULES
from core.config import RunConfig
from core.storage.run_folder import RunFolder
from core.wire import DOWN
from tests import federation as f


def test_every_rule_is_tried_with_the_mean_and_with_the_default_rate() -> None:
    rate = RunConfig().server_rate
    assert {(case.rule, case.rate) for case in CASES} == {(rule, each) for rule in RULES for each in (1.0, rate)}


def test_further_seeds_are_spent_on_the_default_rate() -> None:
    found = list(cases((7, 8)))
    assert {case for seed, case in found if seed == 7} == set(CASES)
    assert {case for seed, case in found if seed == 8} == {case for case in CASES if case.rate != 1.0}


def test_the_default_rule_is_tried_in_every_form_that_saves_much_and_with_each_alone() -> None:
    assert {case.wire for case in CASES if case.rule == RunConfig().aggregation} == {"fp32", "int8", "nf4", "sparse"}
    assert {"int8", "nf4", "sparse"} < DOWN.keys()
    (alone,) = (case for case in CASES if "--lane-size" in case.options)
    assert alone == ALONE


def test_what_was_measured_is_not_measured_again(tmp_path: Path) -> None:
    run = {"options": ["--seed", "7", *SHAPE], "base_loss": {"a": 4.0, "b": 2.0}, "final_loss": {"a": 1.0, "b": 0.5}}
    (tmp_path / "run.json").write_text(json.dumps(run), encoding="utf-8")
    (tmp_path / "said.json").write_text("62.5", encoding="utf-8")
    RunFolder(tmp_path / "state" / "runs" / "one").begin(f.genesis(), f.readers(f.genesis()))
    found = measured(tmp_path, (), 7, ())
    assert found == {"base loss": 3.0, "final loss": 0.75, "change percent": -75.0, "facts said percent": 62.5}
    assert row(Case(), [found, found])["facts said percent"] == "62.5 ± 0"


def test_the_loss_of_a_form_is_compared_with_that_of_the_same_rule_in_fp32() -> None:
    seeds = {Case(): 2.0, Case(rate=1.0): 9.0, ALONE: 9.0, Case(wire="nf4"): 2.1}
    figures = {"rules": [row(case, [{"final loss": loss}] * 2) for case, loss in seeds.items()]}
    (target,) = (target for target in TARGETS if target.result == "rules")
    assert target.cases(figures) == {"nf4": pytest.approx(5.0)}
