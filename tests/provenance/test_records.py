"""Scores of one's own records against gradients that autograd makes whole, and the command that shows them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from core.adapter import AdapterState
from llm.batches import Example, collate, encode
from llm.loss import answer_losses
from llm.model import Model, ModelSpec, load
from llm.records import Record
from provenance.records import record_scores, upper
from tests.llm.conftest import Loader, question
from tests.precision import assert_equal_up_to_rounding
from tests.provenance.conftest import EXAMPLE, TERMS

RECORDS = tuple(question(f"What is {i} and {i + 1}?", f"It is {2 * i + 1}, not {i}.") for i in range(9))


def taught(model: Model) -> AdapterState:
    """A random adapter."""
    generator = torch.Generator().manual_seed(0)
    arrays = model.get_adapter().arrays
    return AdapterState({n: 0.2 * torch.randn(a.shape, generator=generator).numpy() for n, a in arrays.items()})


@pytest.fixture
def last_layer(base_folder: Callable[[str], Path]) -> Model:
    """A tiny base whose adapter is in the last block's last layer: there a position's own path is every path."""
    return load(ModelSpec(str(base_folder("llama")), "none", 4, 8.0, ("down_proj",), "1-1", device="cpu"))


def whole_gradient(model: Model, example: Example, token: int | None = None) -> torch.Tensor:
    """The gradient with respect to B of the log p of one answer token, or of the mean of all, as one vector."""
    (weight,) = [linear.weight for name, linear in model.factors() if name.endswith("lora_B")]
    weight.requires_grad_()
    found = -answer_losses(model, collate([example], [(0,)]))
    return torch.autograd.grad(found.mean() if token is None else found[token], weight)[0].flatten().double()


def test_a_score_is_the_inner_product_of_two_gradients(last_layer: Model) -> None:
    adapter = taught(last_layer)
    scores = record_scores(last_layer, adapter, EXAMPLE, RECORDS, 256)
    last_layer.set_adapter(adapter)
    of_records = [whole_gradient(last_layer, encode(last_layer.tokenizer, record, 256)) for record in RECORDS]
    of_tokens = [whole_gradient(last_layer, EXAMPLE, token) for token in range(len(scores))]
    expected = torch.stack(of_tokens) @ torch.stack(of_records).T
    # Inner products of vectors that may be nearly orthogonal: what rounding loses goes by the vectors' lengths.
    lengths = max(g.norm().item() for g in of_tokens) * max(g.norm().item() for g in of_records)
    assert expected.abs().max() > 0.01 * lengths
    assert_equal_up_to_rounding(scores / lengths, expected / lengths, 100 * TERMS)


@pytest.mark.parametrize("quantisation", ["none", "nf4"])
def test_a_record_scores_the_same_beside_others_and_alone(load_tiny: Loader, quantisation: str) -> None:
    model = load_tiny("llama", quantisation)
    adapter = taught(model)
    together = record_scores(model, adapter, EXAMPLE, RECORDS, 256)
    alone = [record_scores(model, adapter, EXAMPLE, [record], 256) for record in RECORDS]
    # In NF4 a machine with bfloat16 computes with 8 bits of each number.
    terms = TERMS if quantisation == "none" else TERMS * 2**16
    assert_equal_up_to_rounding(together, torch.cat(alone, dim=1), terms)


def test_a_rule_of_half_the_adapted_blocks(load_tiny: Loader) -> None:
    model = load_tiny("llama", "none")
    blocks = {name.split(".")[2] for name in upper(model.layers)}
    assert blocks == {"1"}
    assert len(upper(model.layers)) == len(model.layers) / 2
    assert upper({"model.layers.3.a": model.module, "b": model.module}).keys() == {"model.layers.3.a"}


def test_a_record_that_leaves_no_answer_scores_nothing(load_tiny: Loader) -> None:
    model = load_tiny("llama", "none")
    begin, model.tokenizer.bos_token = model.tokenizer.bos_token, None
    try:
        without = Record((), "")  # the token that ends it, and nothing that predicts it
        scores = record_scores(model, taught(model), EXAMPLE, [without, RECORDS[0]], 256)
        alone = record_scores(model, taught(model), EXAMPLE, [without], 256)
    finally:
        model.tokenizer.bos_token = begin
    assert not scores[:, 0].any()
    assert scores[:, 1].all()
    assert not alone.any()
