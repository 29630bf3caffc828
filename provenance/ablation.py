r"""`ablation`: leave one out.

    score_k(t) = log p(y_t; δ) − log p(y_t; δ − δ_k)

The nats that a token loses when contribution k is taken out and nothing else changes (weights are not renormalised).
It localises a culprit and does not add up: a joint effect of several contributions counts for none of them, or for
each; the residual shows by how much. Organisations are rows of one batch, each with −δ_k as a low-rank term of its own
(`llm/per_row_adapters.py`): nothing is merged and no second adapter is made.
"""

import torch

from llm.batches import Example
from llm.loss import answer_losses
from llm.per_row_adapters import per_row_adapters
from provenance.method import Effort, Scores, Subject, base_logprobs, logprobs_of, rows_of

_ROWS = 16
"""Organisations a forward pass, unless told."""


def ablation(subject: Subject, example: Example, effort: Effort) -> Scores:
    """Score tokens by leaving out each organisation; the response is their sum."""
    model, contributions = subject.model, subject.contributions
    logprobs, base = logprobs_of(subject, example), base_logprobs(subject, example)
    tokens = torch.zeros(len(logprobs), len(contributions.organisations), dtype=torch.float64)
    with torch.no_grad():
        for part, terms in contributions.chunks(effort.chunk or _ROWS):
            with per_row_adapters(model, terms, -contributions.scale):
                losses = answer_losses(model, rows_of(subject, example, part.stop - part.start))
            tokens[:, part] = (logprobs + losses.view(part.stop - part.start, -1).double().cpu()).T
    return Scores(contributions.organisations, tokens, tokens.sum(0), logprobs, base, logprobs)
