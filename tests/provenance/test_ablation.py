import math

import pytest

from provenance.ablation import ablation
from provenance.method import Effort
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


def test_the_response_is_the_sum_of_its_tokens() -> None:
    scores = ablation(log_linear(), TWO, Effort())
    assert scores.response.tolist() == pytest.approx([2 * math.log(9 / 5), 2 * math.log(4 / 5)], abs=1e-6)
