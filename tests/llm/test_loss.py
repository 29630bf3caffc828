import math

import pytest
import torch
from torch import nn

from llm.batches import Example, collate
from llm.loss import answer_logits, answer_losses
from llm.model import Model
from tests.llm.small_decoder import Decoder, V, small_model

EYE = [[float(i == j) for j in range(4)] for i in range(4)]
ZERO = [[0.0] * 4] * 4


@pytest.fixture
def model() -> Model:
    """Logits ln 3 and ln 2 at every position: p is 3/5 and 2/5."""
    network = Decoder(EYE[:2], (ZERO, EYE, ZERO), nn.Identity(), EYE[2:])
    return small_model(network, {V: ([[0.0], [0.0], [math.log(3)], [math.log(2)]], [[1.0, 1.0, 0.0, 0.0]])})


def test_losses_are_those_of_answer_tokens_in_row_major_order(model: Model) -> None:
    batch = collate([Example((0, 0, 1), 1), Example((1, 1), 1)], [(0,), (1,)])
    assert answer_losses(model, batch).tolist() == pytest.approx([math.log(5 / 3), math.log(5 / 2), math.log(5 / 2)])
    logits, tokens = answer_logits(model, batch)
    assert logits.dtype == torch.float32
    assert logits.tolist() == [pytest.approx([math.log(3), math.log(2)])] * 3
    assert tokens.tolist() == [0, 1, 1]


def test_only_positions_that_predict_an_answer_go_through_the_head(model: Model) -> None:
    head, given = model.module.get_base_model().get_output_embeddings(), list[torch.Size]()
    with head.register_forward_hook(lambda _, inputs, __: given.append(inputs[0].shape)):
        answer_losses(model, collate([Example((0, 0, 0, 1), 2), Example((0, 0), 2)], [(0,), (1,)]))
    assert given == [(2, 4)]
    assert not head._forward_pre_hooks
