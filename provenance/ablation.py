r"""`ablation` and `marginal`: what log p loses without an organisation, and what it gains from it alone.

    ablation   score_k(t) = log p(y_t; δ) − log p(y_t; δ − δ_k)
    marginal   score_k(t) = ½ [log p(y_t; δ) − log p(y_t; δ − δ_k)  +  log p(y_t; δ_k) − log p(y_t; 0)]

Nothing else changes when contribution k is taken out: weights are not renormalised. Leaving one out localises a culprit
and does not add up: a joint effect of several contributions counts for none of them, or for each; the residual shows by
how much. Where two organisations would each have said the same, leaving out either shows nothing.

`marginal` is the mean of what an organisation adds as the last of all and as the first: the two ends of the average
over all orders that a Shapley value is (Shapley, 1953), and so the trapezoidal rule with one step for its integral over
the share of the others that have joined (Owen, 1972). It is exact for effects of one contribution and of two.

Organisations are rows of one batch, each with ±δ_k as a low-rank term of its own (`llm/per_row_adapters.py`): nothing
is merged and no second adapter is made.
"""

from dataclasses import replace

import torch

from llm.batches import Example
from llm.familiarity import keys, reading
from llm.loss import answer_losses
from llm.per_row_adapters import per_row_adapters
from provenance.method import Effort, Scores, Subject, base_logprobs, logprobs_of, rows_of

_ROWS = 16
"""Organisations a forward pass, unless told."""


def ablation(subject: Subject, example: Example, effort: Effort) -> Scores:
    """Score tokens by leaving out each organisation; the response is their sum."""
    with reading(subject.model, keys(subject.contributions.modules)) as inputs:
        logprobs = logprobs_of(subject, example)
    base = base_logprobs(subject, example)
    tokens = logprobs.unsqueeze(1) - _with_each(subject, example, effort, -subject.contributions.scale)
    return Scores(subject.organisations, tokens, tokens.sum(0), logprobs, base, logprobs, inputs)


def marginal(subject: Subject, example: Example, effort: Effort) -> Scores:
    """Score tokens by leaving out each organisation and by asking it alone; the response is their sum."""
    return with_first(ablation(subject, example, effort), each_alone(subject, example, effort))


def each_alone(subject: Subject, example: Example, effort: Effort) -> torch.Tensor:
    """Log p (T, K) of the answer with the contribution of each organisation alone."""
    with subject.model.without_adapter():
        return _with_each(subject, example, effort, subject.contributions.scale)


def with_first(left_out: Scores, alone: torch.Tensor) -> Scores:
    """The `marginal` scores of leave-one-out scores and log p (T, K) with each organisation alone."""
    tokens = (left_out.tokens + alone - left_out.base.unsqueeze(1)) / 2
    return replace(left_out, tokens=tokens, response=tokens.sum(0))


def _with_each(subject: Subject, example: Example, effort: Effort, scale: float) -> torch.Tensor:
    """Log p (T, K) of the answer as the model stands, with `scale` times each organisation's contribution added."""
    found = []
    with torch.no_grad():
        for part, terms in subject.contributions.chunks(effort.chunk or _ROWS):
            count = part.stop - part.start
            with per_row_adapters(subject.model, terms, scale):
                losses = answer_losses(subject.model, rows_of(subject, example, count))
            found.append(-losses.view(count, -1).double().cpu())
    return torch.cat(found).T
