"""Shares: scores as parts of a whole, for people to look at. Nothing is decided from them.

A token's `gain` is the adapter's part of its log probability (or logit), in nats: Σ scores + residual, or, where a
method has no residual, log p − base. Then

    base share            = exp(−gain)                   (1 where the adapter lowered the token)
    share of organisation = (1 − exp(−gain)) · w_k       w_k = max(score_k, 0) / Σ_j max(score_j, 0)

so that the base's share is the part of the token's probability that the base model gives it alone. Methods without a
residual score in units of their own, of which only differences mean something: there w = softmax(scores). Where no
organisation has a positive score, the gain belongs to none, and the shares sum to less than 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from provenance.trace import TokenScores, TokenTrace


@dataclass(frozen=True)
class Shares:
    """Parts of 1: one an organisation, in the order of `TokenTrace.organisations`, and the base model's."""

    organisations: tuple[float, ...]
    base: float

    @property
    def strongest(self) -> int:
        """Index of the organisation with the largest share."""
        return max(range(len(self.organisations)), key=self.organisations.__getitem__)


def token_shares(token: TokenScores) -> Shares:
    """The shares of one token, or of a span."""
    additive = token.residual is not None
    gain = sum(token.scores) + token.residual if token.residual is not None else token.logprob - token.base
    return _divided(token.scores, math.exp(-max(gain, 0.0)), additive)


def response_shares(trace: TokenTrace) -> Shares:
    """The shares of a response: the base's is the mean over its tokens, the rest goes by the response's scores."""
    base = sum(token_shares(token).base for token in trace.tokens) / len(trace.tokens)
    return _divided(trace.response.scores, base, trace.response.residual is not None)


def _divided(scores: Sequence[float], base: float, additive: bool) -> Shares:
    # Less the highest score, so that no exponential overflows.
    top = max(scores)
    parts = [max(score, 0.0) if additive else math.exp(score - top) for score in scores]
    total = sum(parts)
    return Shares(tuple((1 - base) * part / total if total else 0.0 for part in parts), base)
