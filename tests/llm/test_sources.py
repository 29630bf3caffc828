from dataclasses import replace

import pytest

from core.config import RunConfig
from llm import sources
from llm.model import ModelSpec
from llm.sources import base_of_genesis, base_of_settings
from tests import federation as f


def test_a_base_is_loaded_as_the_settings_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "load", lambda spec: spec)
    settings = RunConfig(base="name", quantisation="int8", rank=4, alpha=8.0, target_modules="q_proj, v_proj")
    spec = ModelSpec("name", "int8", 4, 8.0, ("q_proj", "v_proj"), "last-third")
    assert base_of_settings(settings) == spec


def test_a_base_is_loaded_as_the_genesis_names_it_or_from_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "load", lambda spec: spec)
    genesis = f.genesis(target_modules=("q_proj",), target_blocks="2-3")
    base = genesis.base
    spec = ModelSpec(base.name, base.quantisation, genesis.rank, genesis.alpha, ("q_proj",), "2-3")
    assert base_of_genesis(genesis) == spec
    assert base_of_genesis(genesis, "elsewhere") == replace(spec, base="elsewhere")
