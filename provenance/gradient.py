r"""`gradient`: the derivative of a token's log p with respect to each contribution, at the served adapter.

    score_k(t) = ⟨∇_δ log p(y_t | x, y_<t), δ_k⟩ = s Σ_modules Σ_positions ⟨g, L_k R_k x⟩

with g (positions, out) the gradient of log p at a module's output and x (positions, in) its input. To first order it is
the cost, in nats, of taking a little of δ_k out. Scaling every contribution at once,
Σ_k score_k = d/dα log p(α Σ δ_k) at α = 1: the residual is the part that is not linear.

Tokens count the positions that predict them: one forward and one backward pass for all of them (`llm/attention.py`).
The response counts all positions, the prompt's too, whose keys and values later tokens read: one more backward pass
of the same forward pass. With `exact`, tokens count all positions as well, at one row and backward pass a token.

The inner product of gradient and update is TracIn's (Pruthi et al., 2020, arXiv 2002.08484, equation 1), with the
updates that were added up to the served adapter in the place of checkpoints' training gradients.
"""

import torch

from llm.batches import Example
from llm.differentiate import forward
from llm.familiarity import keys
from provenance.contributions import Tensors
from provenance.method import Effort, Scores, Subject, base_logprobs, rows_of

_ROWS = 16
"""Tokens of an exact attribution that share a forward pass."""


def gradient(subject: Subject, example: Example, effort: Effort, counts: torch.Tensor | None = None) -> Scores:
    """Score tokens by own-position gradients, or exactly, and the response by all paths.

    `counts` (T,) weighs each token's log p, for its own scores and for the response's; None is 1 everywhere.
    """
    contributions = subject.contributions
    if effort.exact:
        tokens, logprobs = total_scores(subject, example, effort)
        base = base_logprobs(subject, example)
        tokens = tokens if counts is None else counts.unsqueeze(1) * tokens
        return Scores(contributions.organisations, tokens, tokens.sum(0), logprobs, base, logprobs)
    batch = rows_of(subject, example)
    run = forward(subject.model, batch, subject.model.layers)
    # The positions that predict an answer token: each is one before it.
    logprobs, answers = run.logprobs, slice(example.prompt_length - 1, len(example) - 1)
    total = logprobs.sum() if counts is None else counts.to(logprobs) @ logprobs
    own, everywhere = run.both_gradients(total)
    at_answers = _answers(run.inputs, answers), _answers(own, answers)
    scores = contributions.contract(at_answers, (run.inputs, everywhere), size=effort.chunk)
    tokens, response = scores[:-1], scores[-1]
    reached, base = logprobs.detach().double().cpu(), base_logprobs(subject, example)
    read = {name: run.inputs[name][0] for name in keys(contributions.modules)}
    return Scores(contributions.organisations, tokens, response, reached, base, reached, read)


def total_scores(subject: Subject, example: Example, effort: Effort) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores (T, K) along all paths of every token, and log p (T,); the adapter counts as the model now holds it."""
    count = len(example) - example.prompt_length
    tokens = torch.zeros(count, len(subject.contributions.organisations), dtype=torch.float64)
    logprobs = torch.zeros(count, dtype=torch.float64)
    for start in range(0, count, _ROWS):
        stop = min(start + _ROWS, count)
        seen = Example(example.tokens[: example.prompt_length + stop], example.prompt_length)
        run = forward(subject.model, rows_of(subject, seen, stop - start), subject.model.layers)
        # Row i of the batch is there for token start + i alone.
        own = run.logprobs.view(stop - start, stop)[range(stop - start), range(start, stop)]
        tokens[start:stop] = subject.contributions.contract((run.inputs, run.gradients(own.sum())), size=effort.chunk)
        logprobs[start:stop] = own.detach().double().cpu()
    return tokens, logprobs


def _answers(tensors: Tensors, answers: slice) -> Tensors:
    """The positions that predict an answer, each a row of its own: (T, 1, width)."""
    return {name: tensor[0, answers].unsqueeze(1) for name, tensor in tensors.items()}
