"""Attention over two positions of width 1, worked out by hand.

    q = (0, ln 3), k = (0, 1), v = (2, 6):   P = [[1, 0], [1/4, 3/4]],   o = (2, 5)

With 1 as the gradient of both outputs dS_ts = P_ts (v_s − o_t) is 0 in the first row and (−3/4, 3/4) in the second.
"""

import math
from typing import Any

import pytest
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from core.errors import ModelError
from llm.attention import Paths, switchable_attention
from llm.model import Model
from tests.llm.small_decoder import Decoder, linear, small_model

MASK = torch.tensor([[[[0.0, -torch.inf], [0.0, 0.0]]]])
LN3 = math.log(3)


@pytest.fixture
def model() -> Model:
    eye = [[1.0]]
    return small_model(Decoder(eye, (eye, eye, eye), torch.nn.Identity(), eye), FACTORS)


FACTORS = {"model.layers.0.self_attn.v_proj": ([[0.0]], [[1.0]])}


def row(*values: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """(rows 1, heads 1, positions, width 1)."""
    return torch.tensor(values, dtype=dtype).view(1, 1, -1, 1).requires_grad_()


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: Any) -> torch.Tensor:
    function = ALL_ATTENTION_FUNCTIONS["foedus"]
    found: torch.Tensor = function(linear([[1.0]]), query, key, value, options.pop("mask", MASK), 1.0, **options)[0]
    return found


@pytest.mark.parametrize(
    ("own", "key_gradient", "value_gradient"),
    [
        (False, [-3 / 4 * LN3, 3 / 4 * LN3], [1 + 1 / 4, 3 / 4]),
        (True, [0, 3 / 4 * LN3], [1, 3 / 4]),
    ],
)
def test_gradients_along_all_paths_and_along_the_own_position(
    model: Model, own: bool, key_gradient: list[float], value_gradient: list[float]
) -> None:
    query, key, value = row(0, LN3), row(0, 1), row(2, 6)
    with switchable_attention(model) as paths:
        output = attend(query, key, value)
    paths.own = own
    assert output.flatten().tolist() == pytest.approx([2, 5])
    gradients = torch.autograd.grad(output.sum(), [query, key, value])
    assert gradients[0].flatten().tolist() == pytest.approx([0, 3 / 4])
    assert gradients[1].flatten().tolist() == pytest.approx(key_gradient, abs=1e-6)
    assert gradients[2].flatten().tolist() == pytest.approx(value_gradient)


def test_one_forward_pass_serves_both(model: Model) -> None:
    value = row(2, 6)
    with switchable_attention(model) as paths:
        output = attend(row(0, LN3), row(0, 1), value).sum()
    found = []
    for own in (True, False, True):
        paths.own = own
        found.append(torch.autograd.grad(output, value, retain_graph=True)[0].flatten().tolist())
    assert found == [pytest.approx([1, 3 / 4]), pytest.approx([1 + 1 / 4, 3 / 4]), pytest.approx([1, 3 / 4])]


def test_grouped_heads_share_keys_and_values(model: Model) -> None:
    query = torch.tensor([[[[0.0], [LN3]], [[0.0], [0.0]]]])
    with switchable_attention(model):
        output = attend(query, row(0, 1), row(2, 6))
    assert output.shape == (1, 2, 2, 1)  # rows, positions, heads, width
    assert output[0, :, :, 0].tolist() == [pytest.approx([2, 2]), pytest.approx([5, 4])]


def test_half_precision_computes_in_float32_and_answers_in_kind(model: Model) -> None:
    with switchable_attention(model):
        output = attend(*(row(*values, dtype=torch.bfloat16) for values in ((0, LN3), (0, 1), (2, 6))))
    assert output.dtype == torch.bfloat16
    assert output.flatten().tolist() == pytest.approx([2, 5], rel=1e-2)


@pytest.mark.parametrize("options", [{"mask": None}, {"softcap": 30.0}, {"s_aux": torch.zeros(1)}])
def test_attention_of_another_kind_is_refused(model: Model, options: dict[str, Any]) -> None:
    with switchable_attention(model), pytest.raises(ModelError, match="expected attention with a mask"):
        attend(row(0, LN3), row(0, 1), row(2, 6), **options)


def test_it_is_in_force_inside_only_and_counts_its_calls(model: Model) -> None:
    config = model.module.get_base_model().config
    with switchable_attention(model) as paths:
        assert config._attn_implementation == "foedus"
        assert paths == Paths(own=False, calls=0)
        attend(row(0, LN3), row(0, 1), row(2, 6))
        assert paths.calls == 1
    assert config._attn_implementation == "sdpa"
