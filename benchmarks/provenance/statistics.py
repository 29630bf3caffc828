"""Intervals, correlations and calibration errors."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_Z = 1.959964
"""Of a two-sided 95 % interval."""
_RESAMPLES = 2000


@dataclass(frozen=True)
class Share:
    """How many of how many; `low` and `high` are Wilson's 95 % interval (Wilson, 1927)."""

    hits: int
    count: int

    @property
    def value(self) -> float:
        """Hits / count."""
        return self.hits / self.count

    @property
    def low(self) -> float:
        """The interval's lower end."""
        return self._middle - self._half

    @property
    def high(self) -> float:
        """The interval's upper end."""
        return self._middle + self._half

    @property
    def _middle(self) -> float:
        return (self.hits + _Z**2 / 2) / (self.count + _Z**2)

    @property
    def _half(self) -> float:
        spread = self.hits * (self.count - self.hits) / self.count + _Z**2 / 4
        return _Z * math.sqrt(spread) / (self.count + _Z**2)


def pearson(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Correlation of two vectors; 0 where one of them does not vary."""
    one, other = one - one.mean(), other - other.mean()
    size = math.sqrt(float(one @ one) * float(other @ other))
    return float(one @ other) / size if size else 0.0


def resampled(values: Sequence[NDArray[np.float64]], others: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """The 95 % interval of `pearson` over all pairs of centred vectors, by drawing pairs anew (Efron, 1979)."""
    source = np.random.default_rng(0)
    products = np.array([[v @ w, v @ v, w @ w] for v, w in zip(values, others, strict=True)])
    drawn = products[source.integers(len(products), size=(_RESAMPLES, len(products)))].sum(1)
    found = drawn[:, 0] / np.sqrt(np.maximum(drawn[:, 1] * drawn[:, 2], np.finfo(np.float64).tiny))
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)


def spearman(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Correlation of ranks, of vectors without ties."""
    return pearson(*(np.argsort(np.argsort(v)).astype(np.float64) for v in (one, other)))


def calibration_error(confidences: Sequence[float], right: Sequence[bool], bins: int = 10) -> float:
    """Expected calibration error with bins of equal width (Guo et al., 2017, arXiv 1706.04599, equation 3)."""
    sure, hit = np.asarray(confidences), np.asarray(right, dtype=np.float64)
    places = np.minimum((sure * bins).astype(int), bins - 1)
    gaps = [abs(hit[places == b].sum() - sure[places == b].sum()) for b in range(bins)]
    return float(sum(gaps)) / len(sure)
