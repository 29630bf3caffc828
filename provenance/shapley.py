r"""`shapley`: Aumann–Shapley values, which add up to the adapter's whole effect.

    score_k(t) = ∫_0^1 ⟨∇_δ log p(y_t; α δ), δ_k⟩ dα,    Σ_k score_k = log p(δ) − log p(0)

Each contribution's gradient score, averaged along the straight way from the base (α = 0) to the served adapter
(α = 1): the one rule for dividing a cost among fractions of continuous goods that is additive, complete and blind to
how they are grouped (Aumann and Shapley, 1974; Sundararajan et al., 2017, arXiv 1703.01365, equation 1). The integral
is a Gauss–Legendre sum of m points; its error is the residual and falls as m grows. Tokens count all paths, so their
sums are complete, too, at m rows a token.

`exact_shapley` computes every coalition, for few organisations: the reference that other methods are compared with.
"""

from itertools import combinations
from math import comb

import numpy as np
import torch

from core.errors import UsageError
from llm.batches import Example
from llm.loss import answer_losses
from llm.per_row_adapters import per_row_adapters
from provenance.gradient import total_scores
from provenance.method import Effort, Scores, Subject, base_logprobs, logprobs_of, rows_of
from provenance.terms import Term

_ROWS = 32
_MOST = 10
"""Organisations of which every coalition can be computed."""


def shapley(subject: Subject, example: Example, effort: Effort) -> Scores:
    """Average the exact gradient scores over `effort.points` points of the way from the base to the adapter."""
    if effort.points < 1:
        raise UsageError(f"points: expected at least 1, got {effort.points}")
    nodes, weights = np.polynomial.legendre.leggauss(effort.points)
    shape = len(example) - example.prompt_length, len(subject.contributions.organisations)
    tokens = torch.zeros(shape, dtype=torch.float64)
    # The nodes lie between −1 and 1, the way from the base to the adapter between 0 and 1.
    for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
        with subject.model.scaled_adapter((node + 1) / 2):
            tokens += 0.5 * weight * total_scores(subject, example, effort)[0]
    logprobs, base = logprobs_of(subject, example), base_logprobs(subject, example)
    return Scores(subject.contributions.organisations, tokens, tokens.sum(0), logprobs, base, logprobs)


def exact_shapley(subject: Subject, example: Example) -> torch.Tensor:
    """Shapley values (T, K) in nats from the log probabilities of all 2^K coalitions; K at most 10."""
    count = len(subject.contributions.organisations)
    if count > _MOST:
        raise UsageError(f"exact Shapley values: expected at most {_MOST} organisations, got {count}")
    coalitions = [frozenset(c) for size in range(count + 1) for c in combinations(range(count), size)]
    members = torch.tensor([[float(k in c) for k in range(count)] for c in coalitions])
    worth = dict(zip(coalitions, _logprobs(subject, example, members), strict=True))
    values = torch.zeros(len(worth[frozenset()]), count, dtype=torch.float64)
    for coalition, value in worth.items():
        # An organisation's marginal worth, averaged over all orders in which the organisations may join.
        for k in set(range(count)) - coalition:
            share = 1 / (count * comb(count - 1, len(coalition)))
            values[:, k] += share * (worth[coalition | {k}] - value)
    return values


def _logprobs(subject: Subject, example: Example, members: torch.Tensor) -> torch.Tensor:
    """Log p (C, T) of every token under each coalition: `members` (C, K) holds 0 and 1."""
    terms = subject.contributions.together()
    logprobs = []
    with torch.no_grad(), subject.model.without_adapter():
        for some in torch.split(members, _ROWS):
            sums = {name: tuple(_summed(term, some.to(term.left.device)) for term in t) for name, t in terms.items()}
            with per_row_adapters(subject.model, sums, subject.contributions.scale):
                losses = answer_losses(subject.model, rows_of(subject, example, len(some)))
            logprobs.append(-losses.view(len(some), -1).double().cpu())
    return torch.cat(logprobs)


def _summed(term: Term, members: torch.Tensor) -> Term:
    """The term with a row a coalition: Σ_k members_k L_k R_k."""
    left, right = term
    # With a shared factor the sum keeps the rank; else ranks stand side by side.
    if len(right) == 1:
        return Term(torch.einsum("ck,kor->cor", members, left.expand(members.shape[1], -1, -1)), right)
    if len(left) == 1:
        return Term(left, torch.einsum("ck,kri->cri", members, right))
    wide = torch.einsum("ck,kor->cokr", members, left).flatten(2)
    return Term(wide, right.flatten(0, 1).unsqueeze(0))
