import math

import pytest
import torch

from provenance.ablation import ablation, marginal
from provenance.method import Effort, Scoring
from provenance.shapley import exact_shapley
from tests.llm.small_decoder import V
from tests.provenance.small_subjects import FIRST, ONE, SECOND, TWO, log_linear


@pytest.mark.parametrize("chunk", [None, 1])
def test_a_score_is_the_loss_of_log_p_without_the_organisation(chunk: int | None) -> None:
    """p is 3/5; without the first organisation it is 1/3, without the second 3/4, and 1/2 of the base alone."""
    scores = ablation(log_linear(), ONE, Effort(chunk=chunk))
    assert scores.organisations == (FIRST, SECOND)
    assert scores.tokens.tolist() == [pytest.approx([math.log(9 / 5), math.log(4 / 5)], abs=1e-6)]
    assert scores.logprobs.tolist() == pytest.approx([math.log(3 / 5)], abs=1e-6)
    assert scores.base.tolist() == pytest.approx([math.log(1 / 2)], abs=1e-6)
    assert scores.explained is scores.logprobs


@pytest.mark.parametrize("method", [ablation, marginal])
def test_it_keeps_the_inputs_that_familiarity_asks_for(method: Scoring) -> None:
    scores = method(log_linear(), TWO, Effort())
    assert scores.inputs is not None
    assert {name: inputs.tolist() for name, inputs in scores.inputs.items()} == {
        V: [[0, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]]
    }


def test_the_response_is_the_sum_of_its_tokens() -> None:
    scores = ablation(log_linear(), TWO, Effort())
    assert scores.response.tolist() == pytest.approx([2 * math.log(9 / 5), 2 * math.log(4 / 5)], abs=1e-6)


@pytest.mark.parametrize("chunk", [None, 1])
def test_the_marginal_score_is_the_mean_of_leaving_out_and_of_asking_alone(chunk: int | None) -> None:
    """Alone, the first organisation says token 0 with 3/4, the second with 1/3. Of two, that is Shapley's value."""
    scores = marginal(log_linear(), ONE, Effort(chunk=chunk))
    first, second = math.log(9 / 5 * 3 / 2) / 2, math.log(4 / 5 * 2 / 3) / 2
    assert scores.tokens.tolist() == [pytest.approx([first, second], abs=1e-6)]
    assert scores.tokens.sum().item() == pytest.approx(math.log(3 / 5) - math.log(1 / 2), abs=1e-6)
    torch.testing.assert_close(scores.tokens, exact_shapley(log_linear(), ONE), rtol=0, atol=1e-6)
    assert scores.base.tolist() == pytest.approx([math.log(1 / 2)], abs=1e-6)
    assert scores.explained is scores.logprobs
    assert marginal(log_linear(), TWO, Effort()).response.tolist() == pytest.approx([2 * first, 2 * second], abs=1e-6)
