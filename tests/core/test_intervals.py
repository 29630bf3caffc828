"""The interval of a mean, against a table."""

import math

import pytest

from core.intervals import MeanInterval


def test_the_interval_of_a_mean_is_students() -> None:
    found = MeanInterval.of([1.0, 2.0, 3.0])
    half = 4.302653 / math.sqrt(3)  # t of two degrees of freedom
    assert (found.mean, found.low, found.high) == pytest.approx((2, 2 - half, 2 + half), abs=1e-5)
    assert 4.0 in found
    assert 4.5 not in found
    assert 4.5 in MeanInterval.of([1.0, 2.0, 3.0], 0.99)


def test_an_interval_is_written_with_its_half_width_and_read_back() -> None:
    text = str(MeanInterval.of([100.0, 110.0]))
    assert text == "105 ± 64"
    assert MeanInterval.parse_mean(text) == 105
    assert MeanInterval.parse_mean("-0.01757 ± 0.35") == -0.01757


def test_a_single_value_has_no_interval() -> None:
    assert str(MeanInterval.of([3.14159])) == "3.142"
    assert 1e9 in MeanInterval.of([3.14159])
