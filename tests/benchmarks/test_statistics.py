"""Intervals, correlations and calibration errors, against tables and by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from benchmarks.statistics import (
    Share,
    calibration_error,
    gap,
    pearson,
    resampled_pearson,
    span,
    spearman,
)


def test_a_span_has_its_digits() -> None:
    assert span(0.12345, 2.0, 3) == "0.123 to 2.000"


def test_the_interval_of_a_share_is_wilsons() -> None:
    """Against the values of R's prop.test without continuity correction."""
    assert Share(81, 263).interval == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert Share(10, 10).interval == pytest.approx((0.7225, 1), abs=1e-4)
    assert Share(81, 263).percent == {"percent": 30.8, "low": 25.53, "high": 36.62}


def test_a_gap_of_means_is_welchs() -> None:
    one, other = {0: 1.0, 1: 1.5, 2: 1.2}, {5: 2.0, 6: 3.1, 7: 2.2, 8: 2.4}
    welch = stats.ttest_ind([*one.values()], [*other.values()], equal_var=False).confidence_interval(0.99)
    found = gap(one, other, 0.99)
    assert (found.low, found.high) == pytest.approx((welch.low, welch.high))


def test_a_gap_pairs_no_seed_with_itself() -> None:
    assert gap({0: 1.0, 1: 3.0}, {0: 1.0, 1: 3.0, 2: 8.0}).mean == pytest.approx(2.0 - (3.0 + 8.0 + 1.0 + 8.0) / 4)
    assert gap({0: 1.0}, {1: 2.0, 2: 2.5}).high == math.inf, "one seed tells nothing of its error"
    assert 0 in gap({0: 1.0, 1: 1.0}, {0: 1.0, 1: 1.0}), "without any error the gap is exact"


def test_correlations() -> None:
    one = np.array([1.0, 2.0, 3.0, 10.0])
    assert pearson(one, 2 * one + 1) == pytest.approx(1)
    assert spearman(one, -(one**3)) == pytest.approx(-1)
    assert pearson(one, np.ones(4)) == spearman(one, np.ones(4)) == 0


def test_resampling_holds_the_correlation_between_its_ends() -> None:
    source = np.random.default_rng(1)
    values = [v - v.mean() for v in source.normal(size=(200, 6))]
    others = [v - v.mean() for v in np.array(values) + source.normal(size=(200, 6))]
    low, high = resampled_pearson(values, others)
    assert low < pearson(np.concatenate(values), np.concatenate(others)) < high
    assert low < math.sqrt(0.5) < high
    assert high - low < 0.1
    assert resampled_pearson(values, values) == pytest.approx((1, 1))


def test_calibration_error_is_the_gap_between_confidence_and_truth() -> None:
    assert calibration_error([0.95] * 20, [True] * 19 + [False]) == pytest.approx(0)
    assert calibration_error([0.95, 0.05], [False, False]) == pytest.approx(0.5)
    assert calibration_error([1.0], [True]) == 0
