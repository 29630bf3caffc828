r"""How sure a verdict is, and when there is none.

Scores of different methods, models and lengths have no common scale, so they are first measured in their own noise:

    z_k = (S_k − mean_j S_j) / sqrt(Σ_t mean_k (s_kt − mean_j s_jt)²)

with S the response's scores and s the tokens'. The probability that organisation k taught the response is
softmax_k(β z + γ f), with f its familiarity with the text (provenance/familiarity.py): what an organisation did to the
tokens, and whose text this is like. β of each method and γ are fitted on responses whose teacher is known
(benchmarks/provenance), by maximum likelihood, as temperature scaling does (Guo et al., 2017, arXiv 1706.04599). Two
organisations that taught the same thing share their probability. A method abstains where the distribution is nearly
uniform, so where nothing tells the organisations apart; its normalised entropy does not depend on how many there are.
"""

import math

import torch

from core.canonical import Address

SHARPNESS = {"protoken": 0.66, "gradient": 1.00, "direct-logit": 0.66, "ablation": 0.72, "shapley": 0.87}
"""β of each method, as `python -m benchmarks.provenance.tables` fitted it."""

FAMILIARITY = 50.0
"""γ, fitted likewise."""

LEAST_CERTAINTY = 0.02
"""Of 1 − H(p) / log K: below it a method abstains."""


def standardised(tokens: torch.Tensor, response: torch.Tensor) -> torch.Tensor:
    """Return z (K,) of token scores (T, K) and response scores (K,): zero where nothing tells organisations apart."""
    spread = tokens - tokens.mean(dim=1, keepdim=True)
    noise = spread.pow(2).mean(dim=1).sum().sqrt()
    centred = response - response.mean()
    return centred / noise if noise > 0 else torch.zeros_like(centred)


def probabilities(method: str, tokens: torch.Tensor, response: torch.Tensor, familiar: torch.Tensor) -> torch.Tensor:
    """The probability (K,) that each organisation taught the response, of its scores and familiarity (K,)."""
    return torch.softmax(SHARPNESS[method] * standardised(tokens, response) + FAMILIARITY * familiar, dim=0)


def verdict(organisations: tuple[Address, ...], chances: torch.Tensor) -> tuple[float, Address | None]:
    """The highest probability and whose it is; None where nobody's stands out."""
    confidence, best = chances.max(dim=0)
    if len(organisations) > 1:
        entropy = -torch.special.xlogy(chances, chances).sum().item()
        if 1 - entropy / math.log(len(organisations)) < LEAST_CERTAINTY:
            return confidence.item(), None
    return confidence.item(), organisations[int(best)]
