"""`foedus evaluate` on the run's own data sets and on others."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from core.config import RunConfig
from llm.data import read_data
from llm.evaluate import Evaluation
from llm.records import Collection
from tests.commands import ORGANISATIONS, World, foedus

pytestmark = pytest.mark.chain


def test_evaluate_compares_base_and_adapter_on_every_data_set(finished: World) -> None:
    result = finished.command("evaluate", "--limit", 2).json
    domains = {f"validation/{name}" for name in ORGANISATIONS}
    assert set(result["data_sets"]) == set(ORGANISATIONS) | domains
    for figures in result["data_sets"].values():
        assert figures["global"]["loss"] < figures["base"]["loss"]
        assert figures["base"].keys() == figures["global"].keys() == {"loss", "perplexity", "exact_match"}


def test_of_many_organisations_a_sample_is_measured_the_same_each_time(finished: World) -> None:
    first, again = (finished.command("evaluate", "--limit", 1, "--sample", 2).json for _ in range(2))
    assert len(set(first["data_sets"]) & set(ORGANISATIONS)) == 2
    assert first == again
    assert first["missing"] == []


def test_evaluate_reads_other_data(finished: World, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    lines = [json.dumps({"text": f"line {i}"}) for i in range(4)]
    (tmp_path / "other" / "legal.jsonl").write_text("\n".join(lines), encoding="utf-8")
    result = finished.command("evaluate", "--data", tmp_path / "other", "--limit", 1).json
    assert "legal" in result["data_sets"]


def test_a_perplexity_that_no_float_can_hold_is_null(finished: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm.evaluate.evaluate", lambda *_: Evaluation(800.0, 1, 0.0))
    result = finished.command("evaluate", "--limit", 1).json
    assert all(figures["base"]["perplexity"] is None for figures in result["data_sets"].values())
    assert "800 → 800" in foedus("evaluate", "--limit", 1, "--state", finished.state).out


def test_tasks_without_their_package_are_one_line(finished: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm.harness.find_spec", lambda _name: None)
    refused = foedus("evaluate", "--tasks", "arc_easy", "--state", finished.state)
    assert (refused.code, refused.error.partition(",")[0]) == (2, "--tasks: expected the package lm_eval")


def test_figures_of_tasks_are_shown_of_base_and_served_model(finished: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm.harness.check_installed", lambda: None)
    monkeypatch.setattr(
        "llm.harness.task_figures",
        lambda _model, adapter, names, *_: {n: {"acc": 0.5 + (adapter is not None) / 4} for n in names},
    )
    result = finished.command("evaluate", "--tasks", "one, two").json
    assert result["tasks"] == {name: {"base": {"acc": 0.5}, "global": {"acc": 0.75}} for name in ("one", "two")}
    assert "0.5 → 0.75" in foedus("evaluate", "--tasks", "one", "--state", finished.state).out


def test_an_organisation_without_data_is_said_to_be_missing(finished: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_coding(config: RunConfig) -> Collection:
        found = read_data(config)
        return replace(found, organisations=tuple(o for o in found.organisations if o.name != "coding"))

    monkeypatch.setattr("llm.data.read_data", without_coding)
    assert finished.command("evaluate", "--limit", 1).json["missing"] == ["coding"]
    assert "coding: missing: " in foedus("evaluate", "--limit", 1, "--state", finished.state).out
