"""Ranges of settings: the same in a run's settings and in a genesis, for numbers of any size."""

import math
from typing import Any

import pytest

from core.config import RunConfig
from core.errors import ConfigError, FormatError
from core.genesis import Genesis
from core.ranges import RANGES, fault, number
from tests import federation as f

PLAIN = f.genesis().to_dict()


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize(
    "value",
    [10**400, -(10**5000), math.inf, -math.inf, math.nan, "1"],
    ids=["long", "longer", "inf", "-inf", "nan", "text"],
)
def test_no_setting_takes_a_value_that_is_out_of_range(name: str, value: Any) -> None:
    assert "expected" in str(fault(name, value))


def test_an_integer_too_long_to_be_written_is_named_by_its_size() -> None:
    assert number(10**5000) == "an integer of 16610 bits"
    assert number(7) == "7"


def test_the_ends_of_a_range_have_all_their_digits() -> None:
    assert fault("organisations", -1) == "expected 0 to 4294967296, got -1"
    assert fault("seed", -1) == "expected 0 to 9007199254740991, got -1"
    assert fault("learning_rate", 0) == "expected 1e-09 to 10, got 0"


def test_a_share_that_was_taken_for_a_number_is_explained() -> None:
    advice = "it is a share of the lane, and no number of organisations"
    assert fault("fraction", 100.0) == f"expected 1e-09 to 1, got 100.0: {advice}"


@pytest.mark.parametrize("key", ["rounds", "learning-rate", "seed", "timeout"])
def test_settings_refuse_integers_of_any_length(key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        RunConfig.from_flat({key: 10**5000})


@pytest.mark.parametrize(
    "changes",
    [
        {"rank": 0},
        {"rank": 2**53 - 1},
        {"alpha": 1.7e308},
        {"alpha": -1.0},
        {"norm_bound": 0.0},
        {"norm_bound": math.inf},
        {"seed": -1},
        {"seed": 10**400},
        {"rule": "median"},
        {"composition": "product"},
        {"training": PLAIN["training"] | {"rounds": 0}},
        {"training": PLAIN["training"] | {"rounds": 10**6}},
        {"training": PLAIN["training"] | {"learning_rate": 1e300}},
        {"training": PLAIN["training"] | {"batch_size": 0}},
        {"training": PLAIN["training"] | {"max_length": -8}},
        {"participation": PLAIN["participation"] | {"quorum": 0}},
        {"participation": PLAIN["participation"] | {"fraction": 2.0}},
        {"participation": PLAIN["participation"] | {"policy": "whim"}},
        {"base": PLAIN["base"] | {"quantisation": "int1"}},
    ],
)
def test_a_genesis_has_no_value_that_no_setting_may_have(changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match="expected"):
        Genesis.from_dict(PLAIN | changes)
