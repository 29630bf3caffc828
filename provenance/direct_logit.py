r"""`direct-logit`: the contributions that wrote a token's logit into the residual stream.

The last hidden state is the sum of the embedding and of the outputs of each block's two writers (attention output
projection, MLP down projection). With the denominators of the norms behind it held fixed, the logit is linear in it:

    logit_v = w_v·(c_f ⊙ h),  h = e + Σ_l c_l ⊙ (W_l x_l + s Σ_k δ_{k,l}(x_l)),   c = gain / rms, a constant
    score_k = s Σ_l ⟨c_l ⊙ c_f ⊙ w_v, δ_{k,l}(x_l)⟩,   base = ⟨c_f ⊙ w_v, e⟩ + Σ_l ⟨c_l ⊙ c_f ⊙ w_v, W_l x_l⟩

(c_l = 1 but for Gemma's norms behind the writers; biases count to the base.) Base and scores add up to the logit, in
units of the logit, exactly but for rounding, which is the residual. Only direct effects count: a contribution's effect
on queries, keys, gates or later blocks' inputs is credited to the writers behind them. There is no backward pass, and
each token needs its own position only, so scores come with the tokens while they are generated. This is the direct
logit attribution of Elhage et al. (2021, transformer-circuits.pub/2021/framework), with contributions in the place of
heads.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from llm.batches import IGNORED, Example
from llm.loss import answer_logits
from llm.residual_stream import Writes, watched_writes
from provenance.method import Effort, Scores, Subject, rows_of


def direct_logit(subject: Subject, example: Example, effort: Effort) -> Scores:
    """Score the answer in one forward pass; the response is the sum of its tokens."""
    # From the embedding on: what the lower blocks write is part of the base's share.
    batch = replace(rows_of(subject, example), entering=None)
    with torch.no_grad(), watched_writes(subject.model) as writes:
        logits, answer = answer_logits(subject.model, batch)
    return scores_of(subject, writes.at((0, batch.targets[0] != IGNORED)), logits, answer, effort)


def direct_stream(subject: Subject, prompt: tuple[int, ...], most: int, effort: Effort) -> Iterator[tuple[int, Scores]]:
    """Generate greedily and yield each token with its scores as it comes; an end token ends it and is not yielded."""
    model = subject.model
    network: Any = model.module.get_base_model()
    # With the cache of keys and values every step but the first is one position long.
    tokens, cache = torch.tensor([prompt], device=model.device), None
    for _ in range(most):
        with torch.no_grad(), model.autocast(), watched_writes(model) as writes:
            output = network(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
        logits, cache = output.logits[0].float(), output.past_key_values
        chosen = logits.argmax(-1)
        if int(chosen) in model.end_tokens:
            return
        yield int(chosen), scores_of(subject, writes.at((0, slice(-1, None))), logits, chosen, effort)
        tokens = chosen.view(1, 1)


def scores_of(subject: Subject, writes: Writes, logits: torch.Tensor, answer: torch.Tensor, effort: Effort) -> Scores:
    """Scores of the tokens `answer` (T,), predicted by `logits` (T, vocabulary), from the writes before them."""
    contributions = subject.contributions
    readers, base = writes.readers(answer)
    tokens = contributions.contract(
        (
            {name: writes.inputs[name].unsqueeze(1) for name in readers},
            {name: reader.unsqueeze(1) for name, reader in readers.items()},
        ),
        size=effort.chunk,
    )
    chosen = logits.double().gather(-1, answer.unsqueeze(-1)).squeeze(-1)
    logprobs = chosen - logits.double().logsumexp(-1)
    response = tokens.sum(0)
    return Scores(contributions.organisations, tokens, response, logprobs.cpu(), base.cpu(), chosen.cpu())
