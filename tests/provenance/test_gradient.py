import math

import pytest
import torch

from provenance.gradient import gradient, total_scores
from provenance.method import Effort
from tests.llm.small_decoder import V
from tests.provenance.small_subjects import ONE, TWO, log_linear

TOTAL = [0.4 * math.log(3), -0.4 * math.log(2)]
"""⟨(1 − p, −p'), δ_k⟩ with p = 3/5 of the token and p' = 2/5 of the other, over all averaged positions."""


def test_a_token_at_the_first_position_has_its_whole_gradient() -> None:
    scores = gradient(log_linear(), ONE, Effort())
    assert scores.tokens.tolist() == [pytest.approx(TOTAL, abs=1e-6)]
    assert scores.response.tolist() == pytest.approx(TOTAL, abs=1e-6)
    assert scores.logprobs.tolist() == pytest.approx([math.log(3 / 5)], abs=1e-6)
    assert scores.base.tolist() == pytest.approx([math.log(1 / 2)], abs=1e-6)


def test_a_later_token_has_the_part_of_its_own_position_and_the_response_all() -> None:
    scores = gradient(log_linear(), TWO, Effort())
    assert scores.tokens.tolist() == [pytest.approx(TOTAL, abs=1e-6), pytest.approx([t / 2 for t in TOTAL], abs=1e-6)]
    assert scores.response.tolist() == pytest.approx([2 * t for t in TOTAL], abs=1e-6)


def test_exact_tokens_have_all_positions() -> None:
    scores = gradient(log_linear(), TWO, Effort(exact=True, chunk=1))
    assert scores.tokens.tolist() == [pytest.approx(TOTAL, abs=1e-6)] * 2
    tokens, logprobs = total_scores(log_linear(), TWO, Effort())
    torch.testing.assert_close(tokens, scores.tokens)
    assert logprobs.tolist() == pytest.approx([math.log(3 / 5)] * 2, abs=1e-6)


@pytest.mark.parametrize("exact", [False, True])
def test_counts_weigh_tokens_and_response(exact: bool) -> None:
    scores = gradient(log_linear(), TWO, Effort(exact=exact), torch.tensor([1.0, 0.5], dtype=torch.float64))
    assert scores.tokens[0].tolist() == pytest.approx(TOTAL, abs=1e-6)
    assert scores.tokens[1].tolist() == pytest.approx([t / (2 if exact else 4) for t in TOTAL], abs=1e-6)
    assert scores.response.tolist() == pytest.approx([1.5 * t for t in TOTAL], abs=1e-6)


def test_it_keeps_the_inputs_that_familiarity_asks_for() -> None:
    scores = gradient(log_linear(), TWO, Effort())
    assert scores.inputs is not None
    assert {name: inputs.tolist() for name, inputs in scores.inputs.items()} == {
        V: [[0, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]]
    }
