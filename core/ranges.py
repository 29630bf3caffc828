"""Ranges: the values that a setting may have, in a run's settings and in a genesis from elsewhere alike."""

from collections.abc import Mapping

from core.aggregation import RULES
from core.robust import BOUNDS
from core.wire import DOWN

QUANTISATIONS = ("nf4", "int8", "none")
POLICIES = ("all", "random", "round-robin", "greedy", "power-of-choice", "oort", "ucb", "q-learning")
COMPOSITIONS = ("sum", "ensemble", "routing")
SERVES = ("last", "best")

CHOICES: Mapping[str, tuple[str, ...]] = {
    "quantisation": QUANTISATIONS,
    "aggregation": tuple(RULES),
    "composition": COMPOSITIONS,
    "participation": POLICIES,
    "robust": tuple(BOUNDS),
    "serve": SERVES,
    "wire": tuple(DOWN),
}
RANGES: Mapping[str, tuple[float, float]] = {
    "organisations": (0, 2**32),
    "rank": (1, 4096),
    "alpha": (1e-6, 1e6),
    "rounds": (1, 99_999),  # records sort by name, with five digits for the round and two for the attempt
    "local_steps": (1, 10**6),
    "local_epochs": (0, 10**6),
    "batch_size": (1, 10**5),
    "accumulation": (1, 10**5),
    "max_length": (8, 10**6),
    "learning_rate": (1e-9, 10.0),
    "dropout": (0.0, 0.9),
    "server_rate": (1e-6, 1e6),
    "lane_size": (0, 2**32),
    "shards": (1, 1000),
    "fraction": (1e-9, 1.0),
    "pool": (0.0, 1e12),
    "step_price": (0.0, 1e12),
    "traffic_price": (0.0, 1e12),
    "budget": (0.0, 1e12),
    "most_examples": (0, 2**53 - 1),
    "most_weight": (1e-9, 1.0),
    "quorum": (1, 2**32),
    "anchor_every": (1, 99_999),
    "retries": (0, 98),
    "timeout": (0.1, 1e9),
    "evaluate_timeout": (0.1, 1e9),
    "bind_timeout": (0.1, 1e9),
    "grace": (0.0, 1e6),
    "silent_rounds": (1, 99_999),
    "staleness": (0, 1),
    "norm_bound": (1e-9, 1e9),
    "robust_bound": (0.0, 1e9),
    "dp_epsilon": (0.0, 100.0),
    "dp_delta": (1e-15, 0.5),
    "dp_clip": (1e-6, 1e6),
    "dp_reserve": (0, 99_999),
    "chain_lag": (0, 99_999),
    "seed": (0, 2**53 - 1),
    "evaluate_limit": (0, 10**9),
    "calibration": (0, 1000),
    "sample_answers": (0, 16),
    "patience": (0, 99_999),
}

_ADVICE: Mapping[str, str] = {"fraction": ": it is a share of the lane, and no number of organisations"}
"""What to do about a value out of range, where people take the setting for another one."""


def fault(name: str, value: float | str) -> str | None:
    """What is wrong with the value of a setting: `expected X, got Y`; None when nothing is."""
    if name in CHOICES and value not in CHOICES[name]:
        return f"expected one of {', '.join(CHOICES[name])}, got {value!r}"
    low, high = RANGES.get(name, (0, 0))
    # Compared, never converted: an integer may be larger than any float. NaN lies in no range.
    if name in RANGES and (isinstance(value, str) or not low <= value <= high):
        return f"expected {_end(low)} to {_end(high)}, got {number(value)}{_ADVICE.get(name, '')}"
    return None


def _end(value: float) -> str:
    """An end of a range; a whole one with all its digits."""
    return str(value) if isinstance(value, int) else f"{value:g}"


def number(value: object) -> str:
    """A value for an error: an integer too long to be written out by its size."""
    # Python refuses to write integers of more than 4,300 digits.
    huge = isinstance(value, int) and value.bit_length() > 1024
    return f"an integer of {value.bit_length()} bits" if huge and isinstance(value, int) else str(value)
