from dataclasses import replace
from types import SimpleNamespace

import pytest

from core.config import RunConfig
from core.errors import ConfigError, ModelError
from core.genesis import Template
from llm import sources
from llm.model import ModelSpec
from llm.sources import base_of_genesis, base_of_settings
from tests import federation as f


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
