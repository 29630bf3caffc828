import math

import pytest
import torch
from torch import nn

from llm.attention import Paths
from llm.batches import Example, collate
from llm.differentiate import Forward, Seen, forward, hooked
from llm.model import Model
from tests.llm.small_decoder import Decoder, V, linear, small_model

EYE = [[float(i == j) for j in range(4)] for i in range(4)]
ZERO = [[0.0] * 4] * 4


def model() -> Model:
    """Logits ln 3 and ln 2 at every position, by way of the values of attention."""
    network = Decoder(EYE[:2], (ZERO, EYE, ZERO), nn.Identity(), EYE[2:])
    return small_model(network, {V: ([[0.0], [0.0], [math.log(3)], [math.log(2)]], [[1.0, 1.0, 0.0, 0.0]])})


def test_a_forward_pass_has_the_adapters_logits_and_the_modules_inputs_and_outputs() -> None:
    found = forward(small := model(), collate([Example((1, 0, 0), 1)], [[0]]), small.layers)
    assert found.tokens.tolist() == [0, 0]
    assert found.logits.tolist() == [pytest.approx([math.log(3), math.log(2)])] * 2
    assert found.scores.tolist() == pytest.approx([math.log(3)] * 2)
    assert found.logprobs.tolist() == pytest.approx([math.log(3 / 5)] * 2)
    assert found.inputs[V].tolist() == [[[0, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]]]
    assert found.outputs[V].tolist() == [[pytest.approx([0, 0, math.log(3), math.log(2)])] * 3]
    assert not found.inputs[V].requires_grad


def test_gradients_are_those_of_all_paths_or_of_each_position_s_own() -> None:
    """∂ log p / ∂ logits is (2/5, −2/5); the second answer reads the mean of two positions."""
    found = forward(small := model(), collate([Example((1, 0, 0), 1)], [[0]]), small.layers)
    own, everywhere = found.both_gradients(found.logprobs.sum())
    assert own[V][0, :, 2].tolist() == pytest.approx([2 / 5, 1 / 5, 0])
    assert everywhere[V][0, :, 2].tolist() == pytest.approx([2 / 5 + 1 / 5, 1 / 5, 0])
    assert everywhere[V][0, :, 3].tolist() == pytest.approx([-3 / 5, -1 / 5, 0])
    torch.testing.assert_close(found.gradients(found.logprobs.sum())[V], everywhere[V])


def test_the_model_is_left_with_its_adapter_and_without_hooks() -> None:
    small = model()
    forward(small, collate([Example((1, 0), 1)], [[0]]), small.layers)
    assert not small.layers[V]._disable_adapters
    assert not small.layers[V]._forward_hooks
    assert small.module.get_base_model().config._attn_implementation == "sdpa"


def test_gradients_of_a_graph_that_is_given() -> None:
    output = torch.tensor([[[1.0, 2.0]]], requires_grad=True)
    hidden = 3 * output
    found = Forward(hidden[0] @ torch.eye(2), torch.tensor([1]), {}, {"module": output}, hidden, Paths())
    assert found.scores.tolist() == [6]
    assert found.gradients(found.scores.sum())["module"].tolist() == [[[0, 3]]]


def test_hooks_are_in_place_inside_only_in_the_order_given() -> None:
    layer, seen = linear([[1.0, 2.0]]), Seen(torch.device("cpu"))
    hooks = [(layer, lambda _layer, _inputs, output: output + 1), (layer, seen.hook("layer"))]
    with hooked(hooks):
        layer(torch.tensor([[3.0, 4.0]]))
    layer(torch.tensor([[0.0, 0.0]]))
    assert seen.inputs["layer"].tolist() == [[3, 4]]
    assert seen.outputs["layer"].tolist() == [[12]]


def test_hooks_are_taken_away_after_an_error() -> None:
    layer = linear([[1.0]])
    with pytest.raises(ZeroDivisionError), hooked([(layer, lambda *_: None)]):
        raise ZeroDivisionError
    assert not layer._forward_hooks
