r"""The confidence of a verdict, and abstention.

A verdict combines the scores S (K,) of a response, in their own unit and in units of their own noise,

    z_k = (S_k − mean_j S_j) / sqrt(Σ_t mean_k (s_kt − mean_j s_jt)²)

with s the tokens' scores, and familiarity f (provenance/familiarity.py): an organisation's effect on the tokens, and
the likeness of the text to its data. The probability that organisation k taught the response is
softmax_k(β z + α S + γ f). Many nats are never noise, few may be: α is for methods that score in nats, whose
differences are log odds; others have no common scale, and z alone. The weights are fitted on the run's own published
records (provenance/calibrating.py); where there are none, they are constants that were chosen on responses whose
teacher is known (benchmarks/provenance). Two organisations that taught the same thing share their probability. A method
abstains where the distribution is nearly uniform, so where the organisations are not distinguishable; its normalised
entropy does not depend on their number.
"""

import math
from typing import NamedTuple

import torch

from core.calibration import Calibration
from core.canonical import Address
from provenance.trace import TokenTrace

LEAST_CERTAINTY = 0.02
"""Of 1 − H(p) / log K: below it a method abstains."""


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
    "shapley": _NATS,
    "protoken": Weights(0.4, 0.0, 50.0),
    "direct-logit": Weights(0.5, 0.0, 50.0),
}
"""As `python -m benchmarks.provenance.tables` compares them with others."""


def weights_of(calibration: Calibration) -> Weights:
    """The weights that a calibration holds."""
    return Weights(calibration.noise, calibration.score, calibration.familiarity, calibration.certainty)


def standardised(tokens: torch.Tensor, response: torch.Tensor) -> torch.Tensor:
    """Return z (K,) of token scores (T, K) and response scores (K,): zero where organisations are indistinguishable."""
    spread = tokens - tokens.mean(dim=1, keepdim=True)
    noise = spread.pow(2).mean(dim=1).sum().sqrt()
    centred = response - response.mean()
    return centred / noise if noise > 0 else torch.zeros_like(centred)


def judge(
    weights: Weights,
    organisations: tuple[Address, ...],
    tokens: torch.Tensor,
    response: torch.Tensor,
    familiar: torch.Tensor,
) -> tuple[float, Address | None]:
    """Confidence and verdict, of token scores (T, K), response scores (K,) and familiarity (K,) as a trace has them."""
    chances = probabilities(weights, tokens, response, familiar)
    return verdict(organisations, chances, weights.certainty)


def judge_again(weights: Weights, trace: TokenTrace) -> tuple[float, Address | None]:
    """Confidence and verdict of a trace of at least one token, computed from its scores."""
    tokens = torch.tensor([token.scores for token in trace.tokens], dtype=torch.float64)
    response = trace.response
    whole = (torch.tensor(row, dtype=torch.float64) for row in (response.scores, response.familiarity))
    return judge(weights, trace.organisations, tokens, *whole)


def probabilities(
    weights: Weights, tokens: torch.Tensor, response: torch.Tensor, familiar: torch.Tensor
) -> torch.Tensor:
    """The probability (K,) that each organisation taught the response, of its scores and familiarity (K,)."""
    factors = torch.tensor(weights[:3], dtype=torch.float64)
    return torch.softmax(factors @ features(tokens, response, familiar), dim=0)


def features(tokens: torch.Tensor, response: torch.Tensor, familiar: torch.Tensor) -> torch.Tensor:
    """Return what a verdict weighs, (3, K) float64: z, the scores themselves, and familiarity."""
    return torch.stack([standardised(tokens, response), response, familiar]).double()


def verdict(
    organisations: tuple[Address, ...], chances: torch.Tensor, certainty: float = LEAST_CERTAINTY
) -> tuple[float, Address | None]:
    """The highest probability and its organisation; None where no probability stands out."""
    confidence, best = chances.max(dim=0)
    return confidence.item(), None if certainty_of(chances) < certainty else organisations[int(best)]


def certainty_of(chances: torch.Tensor) -> float:
    """1 − H(p) / log K of probabilities (K,): 0 where all are equal, 1 where one is certain, or alone."""
    if len(chances) < 2:
        return 1.0
    entropy: float = -torch.special.xlogy(chances, chances).sum().item()
    return 1 - entropy / math.log(len(chances))
