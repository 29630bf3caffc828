r"""The confidence of a verdict, and abstention.

A verdict combines the scores S (K,) of a response, in their own unit and in units of their own noise,

    z_k = (S_k − mean_j S_j) / sqrt(Σ_t mean_k (s_kt − mean_j s_jt)²)

with s the tokens' scores, and familiarity f (provenance/familiarity.py): an organisation's effect on the tokens, and
the likeness of the text to its data. The probability that organisation k taught the response is
softmax_k(β z + α S + γ f). Many nats are never noise, few may be: α is for methods that score in nats, whose
differences are log odds; others have no common scale, and z alone. The weights are fitted on the run's own published
records (provenance/calibrating.py); where there are none, they are constants that were chosen on responses whose
teacher is known (benchmarks/provenance). Two organisations that taught the same thing share their probability. A method
abstains where the organisations are not distinguishable: where the distribution is nearly uniform, by its normalised
entropy, which does not depend on their number, and where two are the likeliest alike.

In NumPy: whoever checks the evidence of a verdict computes it again, and needs no model for it.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from core.calibration import Calibration
from core.canonical import Address
from provenance.trace import TokenTrace

Array = NDArray[np.float64]
LEAST_CERTAINTY = 0.02
"""Of 1 − H(p) / log K: below it a method abstains."""
_ALIKE = 1e-6
"""Two probabilities as near as this differ by the rounding of scores, which are sums in float32."""


class Weights(NamedTuple):
    """β of z, α of the scores themselves, γ of familiarity, and the certainty below which a method abstains."""

    noise: float
    score: float
    familiarity: float
    certainty: float = LEAST_CERTAINTY


_NATS = Weights(0.4, 0.4, 50.0)
WEIGHTS = {
    "gradient": _NATS,
    "ablation": _NATS,
    "marginal": _NATS,
    "shapley": _NATS,
    "protoken": Weights(0.4, 0.0, 50.0),
    "direct-logit": Weights(0.5, 0.0, 50.0),
}
"""As `python -m benchmarks.provenance.tables` compares them with others."""


def weights_of(calibration: Calibration) -> Weights:
    """The weights that a calibration holds."""
    return Weights(calibration.noise, calibration.score, calibration.familiarity, calibration.certainty)


def standardised(tokens: ArrayLike, response: ArrayLike) -> Array:
    """Return z (K,) of token scores (T, K) and response scores (K,): zero where organisations are indistinguishable."""
    each, whole = np.asarray(tokens, np.float64), np.asarray(response, np.float64)
    spread = each - each.mean(axis=1, keepdims=True)
    noise = np.sqrt(np.square(spread).mean(axis=1).sum())
    centred = whole - whole.mean()
    return centred / noise if noise > 0 else np.zeros_like(centred)


def judge(
    weights: Weights, organisations: tuple[Address, ...], tokens: ArrayLike, response: ArrayLike, familiar: ArrayLike
) -> tuple[float, Address | None]:
    """Confidence and verdict, of token scores (T, K), response scores (K,) and familiarity (K,) as a trace has them."""
    return verdict(organisations, probabilities(weights, tokens, response, familiar), weights.certainty)


def judge_again(weights: Weights, trace: TokenTrace) -> tuple[float, Address | None]:
    """Confidence and verdict of a trace of at least one token, computed from its scores."""
    tokens, response = [token.scores for token in trace.tokens], trace.response
    # Scores from elsewhere may be of any size; what comes of them is then NaN, which equals no confidence.
    with np.errstate(over="ignore", invalid="ignore"):
        return judge(weights, trace.organisations, tokens, response.scores, response.familiarity)


def probabilities(weights: Weights, tokens: ArrayLike, response: ArrayLike, familiar: ArrayLike) -> Array:
    """The probability (K,) that each organisation taught the response, of its scores and familiarity (K,)."""
    return chances_of(weights, features(tokens, response, familiar))


def chances_of(weights: Weights, weighed: Array) -> Array:
    """The probability (K,) that each organisation taught a response of these features (3, K): a softmax."""
    logits = np.asarray(weights[:3]) @ weighed
    powers = np.exp(logits - logits.max())
    return np.asarray(powers / powers.sum())


def features(tokens: ArrayLike, response: ArrayLike, familiar: ArrayLike) -> Array:
    """Return what a verdict weighs, (3, K): z, the scores themselves, and familiarity."""
    rows = standardised(tokens, response), np.asarray(response, np.float64), np.asarray(familiar, np.float64)
    return np.stack(rows)


def verdict(
    organisations: tuple[Address, ...], chances: Array, certainty: float = LEAST_CERTAINTY
) -> tuple[float, Address | None]:
    """The highest probability and its organisation; None where no probability stands out, or two do alike."""
    best = int(chances.argmax())
    several = np.count_nonzero(chances >= chances[best] - _ALIKE) > 1
    return float(chances[best]), None if several or certainty_of(chances) < certainty else organisations[best]


def certainty_of(chances: Array) -> float:
    """1 − H(p) / log K of probabilities (K,): 0 where all are equal, 1 where one is certain, or alone."""
    if len(chances) < 2:
        return 1.0
    # 0 · log 0 is 0.
    likely = chances[chances > 0]
    return 1 - float(-(likely * np.log(likely)).sum()) / math.log(len(chances))
