"""`foedus evaluate` on the run's own data sets and on others."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from core.config import RunConfig
from llm.data import read_data
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


def test_evaluate_reads_other_data(finished: World, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    lines = [json.dumps({"text": f"line {i}"}) for i in range(4)]
    (tmp_path / "other" / "legal.jsonl").write_text("\n".join(lines), encoding="utf-8")
    result = finished.command("evaluate", "--data", tmp_path / "other", "--limit", 1).json
    assert "legal" in result["data_sets"]


def test_an_organisation_without_data_is_said_to_be_missing(finished: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_coding(config: RunConfig) -> Collection:
        found = read_data(config)
        return replace(found, organisations=tuple(o for o in found.organisations if o.name != "coding"))

    monkeypatch.setattr("llm.data.read_data", without_coding)
    assert finished.command("evaluate", "--limit", 1).json["missing"] == ["coding"]
    assert "coding: missing: " in foedus("evaluate", "--limit", 1, "--state", finished.state).out
