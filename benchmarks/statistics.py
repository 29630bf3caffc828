"""Shares, correlations and calibration errors of what was measured, and how they are written."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from core.intervals import LEVEL, MeanInterval

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Share:
    """How many of how many, with Wilson's interval (Wilson, 1927)."""

    hits: int
    count: int

    @property
    def value(self) -> float:
        """Hits / count."""
        return self.hits / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """The ends of the interval."""
        found = stats.binomtest(self.hits, self.count).proportion_ci(LEVEL, method="wilson")
        return float(found.low), float(found.high)

    @property
    def percent(self) -> dict[str, float]:
        """In percent with its interval, as the result pages read it."""
        low, high = self.interval
        values = {"percent": self.value, "low": low, "high": high}
        return {name: round(100 * value, 2) for name, value in values.items()}


def span(low: float, high: float, digits: int) -> str:
    """An interval without its middle, as text."""
    return f"{low:.{digits}f} to {high:.{digits}f}"


def gap(one: Mapping[int, float], other: Mapping[int, float], level: float = LEVEL) -> MeanInterval:
    """The mean difference over all pairs of unlike seeds, by seed; unbounded where a side has a single seed.

    Its interval is Welch's (1947) for two independent means. Where both share seeds, these may only go together, and
    the interval is too wide if anything.
    """
    if min(len(one), len(other)) < 2:
        return MeanInterval(fmean(one.values()) - fmean(other.values()), -math.inf, math.inf)
    pairs = [(seed, another) for seed in one for another in other if seed != another]
    mean = fmean(one[seed] - other[another] for seed, another in pairs)
    errors = []
    for values, drawn in zip((one, other), zip(*pairs, strict=True), strict=True):
        shares = [times / len(pairs) for times in Counter(drawn).values()]
        errors.append(variance(values.values()) * sum(share**2 for share in shares))
    if not (total := sum(errors)):
        return MeanInterval(mean, mean, mean)
    freedom = total**2 / sum(e**2 / (len(side) - 1) for e, side in zip(errors, (one, other), strict=True))
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * math.sqrt(total)
    return MeanInterval(mean, mean - half, mean + half)


def pearson(one: Float64, other: Float64) -> float:
    """Pearson's correlation of two vectors; 0 where one of them does not vary."""
    # scipy warns of a constant vector and returns NaN, which no result file may hold.
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(stats.pearsonr(one, other).statistic)


def spearman(one: Float64, other: Float64) -> float:
    """Spearman's correlation of ranks; 0 where one of the vectors does not vary."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(stats.spearmanr(one, other).statistic)


def resampled_pearson(values: Sequence[Float64], others: Sequence[Float64]) -> tuple[float, float]:
    """The percentile bootstrap interval (Efron, 1979) of Pearson's correlation over all pairs of centred vectors.

    What is drawn anew are the pairs of vectors: values of one response depend on each other.
    """
    products = np.array([[v @ w, v @ v, w @ w] for v, w in zip(values, others, strict=True)]).T

    def correlation(both: Float64, own: Float64, other: Float64, axis: int) -> Any:
        size = np.sqrt(own.sum(axis) * other.sum(axis))
        return both.sum(axis) / np.maximum(size, np.finfo(np.float64).tiny)

    interval = stats.bootstrap(
        tuple(products), correlation, n_resamples=2000, paired=True, confidence_level=LEVEL, method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return float(interval.low), float(interval.high)


def calibration_error(confidences: Sequence[float], right: Sequence[bool], bins: int = 10) -> float:
    """Expected calibration error with bins of equal width (Guo et al., 2017, arXiv 1706.04599, equation 3)."""
    sure, hit = np.asarray(confidences), np.asarray(right, dtype=np.float64)
    # A confidence of 1 belongs to the last bin.
    indices = np.minimum((sure * bins).astype(int), bins - 1)
    gaps = np.bincount(indices, hit - sure, minlength=bins)
    return float(np.abs(gaps).sum()) / len(sure)
