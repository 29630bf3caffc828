"""The gradient of a loss with respect to the adapter."""

import numpy as np
import pytest

from core import lora
from core.adapter import AdapterState
from llm.evaluate import evaluate
from llm.loss_and_gradient import loss_and_gradient
from tests.llm.conftest import TERMS, Loader, question
from tests.precision import up_to_rounding

RECORDS = [question("say a", "abc abc"), question("say b", "xyz"), question("and now", "the rest of it")]


def shifted(state: AdapterState, name: str, change: np.ndarray) -> AdapterState:
    return AdapterState({**state.arrays, name: (state[name] + change).astype(np.float32)})


def test_the_gradient_is_the_change_of_the_loss(load_tiny: Loader) -> None:
    model = load_tiny("llama")
    rng = np.random.default_rng(0)
    fresh = lora.fresh(lora.Layout.of(model.modules, model.spec.rank), b"seed")
    adapter = AdapterState(
        {
            n: a if n.endswith("A") else a + 0.02 * rng.normal(size=a.shape).astype(np.float32)
            for n, a in fresh.arrays.items()
        }
    )
    names = [name for name in adapter if name.endswith("lora_B")]
    loss, gradient = loss_and_gradient(model, adapter, names, RECORDS, 64)
    assert set(gradient) == set(names)
    assert loss == up_to_rounding(evaluate(model, adapter, RECORDS, 64).loss, TERMS)
    for name in names[:3]:
        change = 0.003 * rng.normal(size=adapter[name].shape)
        ahead, behind = (evaluate(model, shifted(adapter, name, s * change), RECORDS, 64).loss for s in (1, -1))
        assert (ahead - behind) / 2 == pytest.approx(float(np.sum(gradient[name] * change)), rel=0.02, abs=1e-5)


def test_asking_leaves_the_model_as_it_was(load_tiny: Loader) -> None:
    model = load_tiny("llama")
    before = [linear.weight.requires_grad for _, linear in model.factors()]
    adapter = model.get_adapter()
    loss_and_gradient(model, adapter, [next(iter(adapter))], RECORDS[:1], 64)
    assert [linear.weight.requires_grad for _, linear in model.factors()] == before
    assert model.get_adapter() == adapter
