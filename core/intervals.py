"""The mean of what was measured several times, with its interval, and how that is written."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

LEVEL = 0.95
"""Confidence of every interval, unless another is asked for."""


@dataclass(frozen=True)
class MeanInterval:
    """The mean of independent values with its two-sided interval by Student's t, unbounded for a single value."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: ArrayLike, level: float = LEVEL) -> "MeanInterval":
        """The interval of at least one value."""
        data = np.asarray(values, np.float64)
        mean = float(data.mean())
        if len(data) < 2:
            return cls(mean, -math.inf, math.inf)
        quantile = float(stats.t.ppf((1 + level) / 2, len(data) - 1))
        half = quantile * float(data.std(ddof=1)) / math.sqrt(len(data))
        return cls(mean, mean - half, mean + half)

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        """`mean ± half`, the way every result file has it; the mean alone where nothing is known of its error."""
        half = f" ± {self.high - self.mean:.2g}" if math.isfinite(self.high) else ""
        return f"{self.mean:.4g}{half}"

    @staticmethod
    def parse_mean(text: str) -> float:
        """The mean of a written interval."""
        return float(text.split(maxsplit=1)[0])
