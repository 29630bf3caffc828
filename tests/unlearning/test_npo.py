import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from core.errors import UsageError
from llm.evaluate import evaluate
from llm.model import ModelSpec, load
from llm.train import TrainConfig, train
from tests.llm.conftest import question
from tests.llm.test_train import parent
from unlearning.lineage import Label
from unlearning.npo import BridgeConfig, bridge, npo, simnpo

TRAINING = TrainConfig(steps=12, batch_size=2, max_length=96, learning_rate=1e-2)


def test_npo_is_the_papers_formula() -> None:
    """π/π₀ is 1/2 for one record and 1 for the other."""
    loss = npo(torch.tensor([math.log(8), 0.3]), torch.tensor([math.log(4), 0.3]), beta=0.5)
    wanted = 2 / 0.5 * (math.log(1 + 0.5**0.5) + math.log(2)) / 2
    assert loss.item() == pytest.approx(wanted)


def test_simnpo_looks_at_the_mean_of_an_answers_tokens() -> None:
    loss = simnpo(torch.tensor([6.0]), torch.tensor([3]), beta=2.0, gamma=1.0)
    assert loss.item() == pytest.approx(2 / 2.0 * math.log(1 + math.exp(-(2.0 * 2.0 - 1.0))))


@pytest.mark.parametrize(("method", "beta"), [("npo", 0.1), ("simnpo", 2.5)])
def test_a_bridge_forgets_and_retains(base: Path, method: str, beta: float) -> None:
    model = load(ModelSpec(str(base), "none", 4, 8.0, device="cpu"))
    retain = [question(f"How many are {i} and {i}?", f"They are {2 * i}.") for i in range(8)]
    forget = [question(f"{name}?", f"{name} lives on the moon") for name in ("Ann", "Bob", "Eve", "Joe")]
    known = train(model, [*forget, *retain], parent(model), replace(TRAINING, steps=40), seed=1).adapter
    config = BridgeConfig(TRAINING, method, beta)
    found = bridge(model, known, forget, retain, config, seed=2)
    before, after = ([evaluate(model, state, part, 96).loss for part in (forget, retain)] for state in (known, found))
    assert after[0] > 1.5 * before[0]
    assert after[1] / before[1] < 0.7 * after[0] / before[0]
    assert found == bridge(model, known, forget, retain, config, seed=2)
    assert config.label is Label.APPROXIMATE
    alone = bridge(model, known, forget, retain, replace(config, retain=0.0), seed=2)
    assert evaluate(model, alone, retain, 96).loss > after[1]


def test_a_bridge_has_two_methods() -> None:
    with pytest.raises(UsageError, match="expected one of npo, simnpo, got 'ascent'"):
        BridgeConfig(TRAINING, "ascent")
    with pytest.raises(UsageError, match="beta"):
        BridgeConfig(TRAINING, beta=0.0)
