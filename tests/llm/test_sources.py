import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from core.config import RunConfig
from core.errors import ConfigError, DataError, ModelError
from core.genesis import Template
from llm import sources
from llm.model import ModelSpec
from llm.records import Collection, Record
from llm.sources import base_of_genesis, base_of_settings, read_data
from tests import federation as f


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name in ("medical", "coding"):
        lines = [json.dumps({"question": f"{name} {i}?", "answer": str(i)}) for i in range(3)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path


def one(path: Path, answer: str) -> Path:
    path.write_text(json.dumps({"question": "?", "answer": answer}), encoding="utf-8")
    return path


def test_a_folder_s_organisations_in_order_of_name(data: Path) -> None:
    assert [o.name for o in read_data(RunConfig(data=str(data))).organisations] == ["coding", "medical"]
    assert [o.name for o in read_data(RunConfig(data=str(data), organisations=1)).organisations] == ["coding"]


def test_the_shared_validation_set_is_the_settings_then_the_folder_s_then_the_embedded_one(data: Path) -> None:
    embedded = read_data(RunConfig(data=str(data))).validation
    assert {record.domain for record in embedded} == {"coding", "financial", "mathematical", "medical"}
    one(data / "validation.jsonl", "the folder's")
    assert [r.answer for r in read_data(RunConfig(data=str(data))).validation] == ["the folder's"]
    other = one(data / "other.txt", "the setting's")
    config = RunConfig(data=str(data), validation=str(other))
    assert [r.answer for r in read_data(config).validation] == ["the setting's"]


def test_without_data_the_sample_organisations_are_read() -> None:
    assert [o.name for o in read_data(RunConfig()).organisations] == ["coding", "financial", "mathematical", "medical"]


def test_a_name_on_the_hub_is_divided_by_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    validation = (Record((), "shared"),)
    asked: list[object] = []
    monkeypatch.setattr(sources, "read_hub", lambda *a: asked.append(a) or Collection((), validation, ()))
    found = read_data(RunConfig(data="hf:owner/name", organisations=3, seed=5, partition="dirichlet"))
    assert asked == [("owner/name", 3, 5, "dirichlet")]
    assert found.validation == validation


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a folder"):
        read_data(RunConfig(data=str(tmp_path / "gone")))


@pytest.fixture
def asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """`load` answers with the spec that it was given, as a base of 64 positions whose template prints no date."""
    monkeypatch.setattr(
        sources, "load", lambda spec: SimpleNamespace(asked=spec, spec=replace(spec, date=""), context_length=64)
    )


@pytest.mark.usefixtures("asked_for")
def test_a_base_is_loaded_as_the_settings_name_it() -> None:
    settings = RunConfig(
        base="name", quantisation="int8", rank=4, alpha=8.0, target_modules="q_proj, v_proj", max_length=64, rslora=True
    )
    spec = ModelSpec("name", "int8", 4, 8.0, ("q_proj", "v_proj"), "last-half", rslora=True)
    assert base_of_settings(settings).asked == spec
    assert base_of_settings(settings, "2026-01-31").asked == replace(spec, date="2026-01-31")


@pytest.mark.usefixtures("asked_for")
def test_rows_longer_than_the_base_s_positions_are_refused() -> None:
    with pytest.raises(ConfigError, match="max-length: expected at most 64, the positions of base name, got 65"):
        base_of_settings(RunConfig(base="name", max_length=65))


@pytest.mark.usefixtures("asked_for")
def test_a_base_is_loaded_as_the_genesis_names_it_or_from_where_it_is() -> None:
    genesis = f.genesis(target_modules=("q_proj",), target_blocks="2-3")
    base = genesis.base
    spec = ModelSpec(base.name, base.quantisation, genesis.rank, genesis.alpha, ("q_proj",), "2-3")
    assert base_of_genesis(genesis).asked == spec
    assert base_of_genesis(replace(genesis, rslora=True)).asked == replace(spec, rslora=True)
    assert base_of_genesis(genesis, "elsewhere").asked == replace(spec, base="elsewhere")


@pytest.mark.usefixtures("asked_for")
def test_a_base_that_prints_another_date_than_the_genesis_says_is_refused() -> None:
    with pytest.raises(ModelError, match="expected one that prints 2026-01-31, got no date"):
        base_of_genesis(f.genesis(template=Template(date="2026-01-31")))
