"""The served model of a run, from its records and its base alone."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core import lora, seeds
from core.aggregation import RULES
from core.errors import ModelError
from core.genesis import Base
from llm.model import Model, ModelSpec, load
from llm.served import base_of, serving, shared_adapter
from tests.behaviours.runs import SEED, Federation, Lies, build
from tests.commands import make_base


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def model(base: Path) -> Model:
    return load(ModelSpec(str(base), "none", 2, 4.0))


def federation(folder: Path, base: Path, model: Model, **choices: Any) -> Federation:
    """A run whose updates have the shapes of a real base."""
    on_the_base = Lies(genesis=partial(replace, base=Base(str(base), model.digest, "none")))
    return build(folder, layout=lora.Layout.of(model.modules, 2), lies=on_the_base, **choices)


def test_before_any_training_a_is_shared_and_b_is_zero(model: Model) -> None:
    adapter = shared_adapter(model, 2, SEED)
    assert adapter == lora.fresh(lora.Layout.of(model.modules, 2), seeds.shared(SEED))
    assert {name.rpartition("_")[2] for name in adapter} == {"A", "B"}
    assert not any(adapter[name].any() for name in adapter if name.endswith("lora_B"))
    assert all(adapter[name].any() for name in adapter if name.endswith("lora_A"))


@pytest.mark.parametrize("rule", list(RULES))
def test_what_is_served_is_the_state_that_the_last_record_names(
    tmp_path: Path, base: Path, model: Model, rule: str
) -> None:
    run = federation(tmp_path / "run", base, model, rule=rule)
    found = serving(run.run)
    (state,), (adapter,) = found.state.states, found.adapter.states
    assert state.digest == run.run.lineage(0)[-1].value.aggregate
    assert adapter == RULES[rule].adapter(run.lanes[0].state, shared_adapter(model, 2, SEED))
    found.model.set_adapter(adapter)  # fits the base
    assert found.lanes == (0,)


def test_independently_trained_lanes_are_parts_of_what_is_served(tmp_path: Path, base: Path, model: Model) -> None:
    run = federation(tmp_path / "run", base, model, lanes=2, composition="ensemble")
    found = serving(run.run)
    assert found.adapter.kind == "ensemble"
    assert [state.digest for state in found.state.states] == [lane.state.digest for lane in run.lanes]
    assert sum(part.share for part in found.adapter.parts) == pytest.approx(1)
    assert found.lanes == (0, 1)


def test_another_base_is_refused_by_its_digest(tmp_path: Path, base: Path, model: Model) -> None:
    run = federation(tmp_path / "run", base, model)
    assert base_of(run.genesis, str(base)).digest == model.digest
    other = make_base(tmp_path / "other")
    config = (other / "config.json").read_text().replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05')
    (other / "config.json").write_text(config)
    with pytest.raises(ModelError, match=run.genesis.base.digest):
        base_of(run.genesis, str(other))


def test_summed_lanes_are_served_as_one_adapter(tmp_path: Path, base: Path, model: Model) -> None:
    run = federation(tmp_path / "run", base, model, lanes=2)
    (state,) = serving(run.run).state.states
    for name in state:
        parts = [lane.state[name].astype(np.float64) for lane in run.lanes]
        low, high = np.minimum(*parts), np.maximum(*parts)
        assert ((state[name] >= low - 1e-6) & (state[name] <= high + 1e-6)).all()
