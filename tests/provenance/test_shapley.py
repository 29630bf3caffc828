import math

import pytest

from core.errors import UsageError
from provenance.method import Effort
from provenance.shapley import exact_shapley, shapley
from tests.provenance.small_subjects import ONE, TWO, log_linear


def test_exact_values_are_the_mean_marginal_gains() -> None:
    """p is 1/2 of the base, 3/4 with the first organisation, 1/3 with the second, and 3/5 with both."""
    ((first, second),) = exact_shapley(log_linear(), ONE).tolist()
    assert first == pytest.approx((math.log(3 / 4 / (1 / 2)) + math.log(3 / 5 / (1 / 3))) / 2, abs=1e-6)
    assert second == pytest.approx((math.log(1 / 3 / (1 / 2)) + math.log(3 / 5 / (3 / 4))) / 2, abs=1e-6)
    assert first + second == pytest.approx(math.log(6 / 5), abs=1e-6)


def test_the_path_divides_the_gain_by_the_integral_of_the_gradient() -> None:
    """∫ 1 − p(α) dα = 1 − ln(5/4) / ln(3/2), where p(α) is the probability at α of the adapter."""
    path = 1 - math.log(5 / 4) / math.log(3 / 2)
    scores = shapley(log_linear(), TWO, Effort(points=8))
    expected = [math.log(3) * path, -math.log(2) * path]
    assert scores.tokens.tolist() == [pytest.approx(expected, abs=1e-6)] * 2
    assert scores.response.sum().item() == pytest.approx(2 * math.log(6 / 5), abs=1e-6)


def test_a_single_point_is_the_gradient_half_way() -> None:
    half = 1 / (1 + math.sqrt(3 / 2))
    scores = shapley(log_linear(), ONE, Effort(points=1))
    assert scores.tokens.tolist() == [pytest.approx([math.log(3) * half, -math.log(2) * half], abs=1e-6)]


def test_points_are_at_least_one() -> None:
    with pytest.raises(UsageError, match="expected at least 1, got 0"):
        shapley(log_linear(), ONE, Effort(points=0))
