"""How far an adapter is from one that never knew what was erased; two-sided, for over-forgetting is a trace, too.

All functions are pure and take losses that were measured elsewhere, in nats (−log p).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from core.errors import DataError

Float64 = NDArray[np.float64]


def truth_ratio(paraphrase: ArrayLike, perturbed: ArrayLike) -> Float64:
    """Mean p of wrong answers over p of a right one, each per token (TOFU, Maini et al., 2024, arXiv 2401.06121).

    Equation 1 there. `paraphrase` (records,) and `perturbed` (records, answers) are nats per token; returns (records,).
    A model that knows the right answer has a low one.
    """
    right, wrong = np.asarray(paraphrase, np.float64), np.asarray(perturbed, np.float64)
    return np.asarray(np.exp(right[:, None] - wrong).mean(axis=1))


def forget_quality(ratios: ArrayLike, reference: ArrayLike) -> float:
    """TOFU's forget quality: the p-value of `ks_test` between truth ratios of a model and of a retrained one."""
    return ks_test(ratios, reference)[1]


def ks_test(one: ArrayLike, other: ArrayLike) -> tuple[float, float]:
    """Two-sample Kolmogorov–Smirnov: the largest distance of the two distributions, and its exact two-sided p-value.

    The p-value is the probability that a random walk through the pooled samples leaves the band (Hodges, 1958).
    """
    a, b = np.sort(np.asarray(one, np.float64)), np.sort(np.asarray(other, np.float64))
    m, n = _some(len(a)), _some(len(b))
    pooled = np.concatenate([a, b])
    apart = np.abs(np.searchsorted(a, pooled, "right") * n - np.searchsorted(b, pooled, "right") * m)
    band = int(apart.max())
    if band == 0:
        return 0.0, 1.0
    left, ended = np.zeros(m + 1), 0.0
    left[0] = 1.0  # of the walks still in the band after s steps, by how many came from the first sample
    for s in range(m + n):
        i = np.arange(m + 1)
        j = s - i
        up = left * np.clip(m - i, 0, None) / (m + n - s)
        left = left * np.clip(n - j, 0, None) / (m + n - s)
        left[1:] += up[:-1]
        out = np.abs(i * n - (s + 1 - i) * m) >= band
        ended += float(left[out].sum())
        left[out] = 0.0
    return band / (m * n), min(1.0, ended)


def chosen_probability(right: ArrayLike, wrong: ArrayLike) -> Float64:
    """P of the right answer among the answers there are (TOFU, section 2.2.1): (records,) and (records, answers)."""
    own = np.exp(-np.asarray(right, np.float64))
    return np.asarray(own / (own + np.exp(-np.asarray(wrong, np.float64)).sum(axis=1)))


def model_utility(parts: Sequence[float]) -> float:
    """TOFU's model utility: the harmonic mean of scores between 0 and 1; 0 as soon as one of them is 0."""
    _some(len(parts))
    return 0.0 if min(parts) <= 0 else len(parts) / sum(1 / part for part in parts)


def membership_auc(members: ArrayLike, others: ArrayLike) -> float:
    """How well low loss tells members from others: P(loss of a member < that of another), ties half.

    0.5 is chance (Yeom et al., 2018, arXiv 1709.01604). What counts is the distance from the retrained model's value.
    """
    inside, outside = np.asarray(members, np.float64), np.sort(np.asarray(others, np.float64))
    below = len(outside) - np.searchsorted(outside, inside, "right")
    level = np.searchsorted(outside, inside, "right") - np.searchsorted(outside, inside, "left")
    return float((below + 0.5 * level).sum() / (_some(len(inside)) * _some(len(outside))))


def exposure(canary: float, candidates: ArrayLike) -> float:
    """log₂ |R| − log₂ rank, in bits, of a canary among all candidates, itself included (Carlini et al., 2019).

    `canary` and `candidates` are nats. A canary that was never seen has 1.44 bits on average.
    """
    losses = np.asarray(candidates, np.float64)
    return math.log2(_some(len(losses))) - math.log2(max(1, int((losses <= canary).sum())))


def extraction_strength(tail: ArrayLike, tokens: ArrayLike) -> float:
    """Mean share of an answer that greedy decoding gives once it has what stands before (Carlini et al., 2021).

    `tail` counts an answer's last tokens that are all the likeliest, `tokens` all of them.
    """
    return float(np.mean(np.asarray(tail, np.float64) / np.asarray(tokens, np.float64)))


@dataclass(frozen=True)
class Interval:
    """A mean with the confidence interval of Student's t."""

    mean: float
    low: float
    high: float

    def holds(self, value: float) -> bool:
        """Whether a value lies in it."""
        return self.low <= value <= self.high


def mean_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """The mean of at least two values with its two-sided interval; raises DataError for fewer."""
    found = np.asarray(values, np.float64)
    if len(found) < 2:
        raise DataError(f"got {len(found)} values, wanted at least 2 for an interval")
    half = student_quantile(len(found) - 1, level) * float(found.std(ddof=1)) / math.sqrt(len(found))
    return Interval(float(found.mean()), float(found.mean()) - half, float(found.mean()) + half)


@cache
def student_quantile(freedom: int, level: float) -> float:
    """The t between whose negative and positive `level` of Student's distribution lies; relative error below 1e-6.

    With t = √ν tan θ the density is that of cos^(ν−1) θ, which is integrated by Simpson's rule.
    """
    angles = np.linspace(0, math.pi / 2, 200_001)
    density = np.cos(angles) ** (freedom - 1)
    steps = (density[:-2:2] + 4 * density[1:-1:2] + density[2::2]) / 3
    share = np.concatenate([[0.0], np.cumsum(steps)])
    angle = float(np.interp(level, share / share[-1], angles[::2]))
    return math.sqrt(freedom) * math.tan(angle)


def _some(count: int) -> int:
    if not count:
        raise DataError("got no values, wanted at least one")
    return count
