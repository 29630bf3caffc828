import math
from itertools import combinations

import numpy as np
import pytest

from unlearning import metrics


def test_truth_ratio_is_the_mean_of_wrong_over_right() -> None:
    ratios = metrics.truth_ratio([math.log(2), 0.0], [[math.log(4), math.log(8)], [math.log(2), math.log(2)]])
    assert ratios == pytest.approx([(1 / 4 + 1 / 8) / 2 / (1 / 2), 0.5])


def by_counting(one: list[float], other: list[float]) -> float:
    """P of a distance at least as large, over every way to divide the pooled values."""
    pooled, m = [*one, *other], len(one)
    seen = metrics.ks_test(one, other)[0]
    found, every = [], range(len(pooled))
    for chosen in combinations(every, m):
        rest = [i for i in every if i not in chosen]
        found.append(max(abs(sum(i <= k for i in chosen) / m - sum(i <= k for i in rest) / len(rest)) for k in every))
    return sum(d >= seen - 1e-12 for d in found) / len(found)


@pytest.mark.parametrize(("m", "n"), [(4, 4), (5, 3), (6, 5)])
def test_the_p_value_counts_all_ways_to_divide(m: int, n: int) -> None:
    values = np.random.default_rng(m * n).normal(size=m + n)
    one, other = list(values[:m]), list(values[m:] + 0.5)
    assert metrics.ks_test(one, other)[1] == pytest.approx(by_counting(one, other))


def test_forget_quality_of_equal_and_of_disjoint_samples() -> None:
    assert metrics.forget_quality([1.0, 2.0, 3.0], [3.0, 1.0, 2.0]) == 1.0
    distance, p = metrics.ks_test(range(40), range(100, 140))
    assert distance == 1
    assert p == pytest.approx(2 / math.comb(80, 40), rel=1e-9)


def test_utility_is_the_harmonic_mean() -> None:
    assert metrics.model_utility([0.5, 0.25]) == pytest.approx(1 / 3)
    assert metrics.model_utility([0.5, 0.0]) == 0
    assert metrics.chosen_probability([math.log(2)], [[math.log(4), math.log(4)]]) == pytest.approx([0.5])


def test_membership_auc_counts_ties_half() -> None:
    assert metrics.membership_auc([1.0, 2.0], [2.0, 3.0]) == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    assert metrics.membership_auc([5.0], [1.0, 2.0]) == 0


def test_exposure_is_the_bits_that_the_rank_saves() -> None:
    losses = np.arange(256.0)
    assert metrics.exposure(0.0, losses) == 8
    assert metrics.exposure(3.0, losses) == 6
    assert metrics.exposure(255.0, losses) == 0
    assert np.mean([metrics.exposure(v, losses) for v in losses]) == pytest.approx(1.44, abs=0.05)


def test_extraction_strength_is_the_share_said_unaided() -> None:
    assert metrics.extraction_strength([2, 0], [4, 3]) == pytest.approx(0.25)
