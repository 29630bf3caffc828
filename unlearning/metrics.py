"""Unlearning metrics: the distance of an adapter from one that never knew the erased records.

They are two-sided, for over-forgetting is a trace, too. All functions are pure and take losses that were measured
elsewhere, in nats (−log p).
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

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
    """Two-sample Kolmogorov–Smirnov: the largest distance of the two distributions, and its exact two-sided p-value."""
    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
    _check_some(a)
    _check_some(b)
    # Exact: for as few records as are usually erased the asymptotic p-value is far off.
    test = stats.ks_2samp(a, b, method="exact")
    return float(test.statistic), float(test.pvalue)


def chosen_probability(right: ArrayLike, wrong: ArrayLike) -> Float64:
    """P of the right answer among the answers there are (TOFU, section 2.2.1): (records,) and (records, answers)."""
    own = np.exp(-np.asarray(right, np.float64))
    return np.asarray(own / (own + np.exp(-np.asarray(wrong, np.float64)).sum(axis=1)))


def model_utility(parts: Sequence[float]) -> float:
    """TOFU's model utility: the harmonic mean of scores between 0 and 1; 0 as soon as one of them is 0."""
    _check_some(parts)
    return 0.0 if min(parts) <= 0 else len(parts) / sum(1 / part for part in parts)


def membership_auc(members: ArrayLike, others: ArrayLike) -> float:
    """The area under the ROC curve of low loss as a sign of membership: P(loss of a member < that of a non-member).

    Ties count half, 0.5 is chance (Yeom et al., 2018, arXiv 1709.01604); compare it with the retrained model's value.
    """
    inside, outside = np.asarray(members, np.float64), np.asarray(others, np.float64)
    _check_some(inside)
    _check_some(outside)
    # The area is Mann and Whitney's U, a count of pairs, as a share of all pairs.
    return float(stats.mannwhitneyu(outside, inside, method="asymptotic").statistic) / (len(inside) * len(outside))


def exposure(canary: float, candidates: ArrayLike) -> float:
    """log₂ |R| − log₂ rank, in bits, of a canary among all candidates, itself included (Carlini et al., 2019).

    `canary` and `candidates` are nats. A canary that was never seen has 1.44 bits on average.
    """
    losses = np.asarray(candidates, np.float64)
    _check_some(losses)
    return math.log2(len(losses)) - math.log2(max(1, int((losses <= canary).sum())))


def extraction_strength(tail: ArrayLike, tokens: ArrayLike) -> float:
    """Mean share of an answer that greedy decoding completes from the tokens before it (Carlini et al., 2021).

    `tail` counts an answer's last tokens that are all the likeliest, `tokens` all of them.
    """
    return float(np.mean(np.asarray(tail, np.float64) / np.asarray(tokens, np.float64)))


def _check_some(values: Sequence[float] | Float64) -> None:
    if not len(values):
        raise DataError("expected at least one value, got none")
