r"""`protoken`: the score of ProToken (Gill et al., 2026, arXiv 2601.19672) for a federation of adapters.

    score_i(v) = Σ_l ⟨h_{i,l}, g_l⟩,   softmax over clients of Σ_v score_i(v)

g_l is the gradient of the chosen token's logit at the output of module l in the global model; h_{i,l} is the output of
the same module with client i's weights, on the global model's input to it. Monitored are, as in the paper, the
attention output projection, the MLP as a whole, and the head: the last three modules, so those of the last block and
lm_head. Client i's model is the one that it trained in the last round: the state it was sent plus its own unweighted
update. Only clients of the last round are candidates, and federated weights do not enter.

The paper runs T full passes and K module replays for each. But behind the last block's attention nothing mixes
positions, so the gradient of the sum of all tokens' logits is, at each position, that of its own token: one forward
pass, a backward pass that ends in the last block, and K replays of two modules on all T positions at once, clients as
rows of a batch; the one row that they all read goes through the base's weights once.
"""

import torch

from llm.batches import IGNORED, Example
from llm.differentiate import forward
from llm.per_row_adapters import per_row_adapters
from llm.residual_stream import residual_stream
from provenance.method import Effort, Scores, Subject, base_logprobs, rows_of


def protoken(subject: Subject, example: Example, effort: Effort) -> Scores:
    """Score tokens (in units of the logit) for the clients of the last round; the response is their sum."""
    model, contributions = subject.model, subject.contributions
    stream = residual_stream(model)
    projection, mlp = stream.last_block
    monitored = {projection: model.layers[projection], mlp: stream.mlps[mlp]}
    batch = rows_of(subject, example)
    run = forward(model, batch, monitored, entry=model.layers[projection])
    gradients, answers = run.gradients(run.scores.sum()), batch.targets[0] != IGNORED
    adapted = [name for name in model.layers if name == projection or name.startswith(f"{mlp}.")]
    # The head's part: no adapter sits there, so every client's output is the global logit.
    scores = run.scores.detach().double().unsqueeze(1).repeat(1, len(contributions.candidates))
    with torch.no_grad(), model.without_adapter(), model.autocast():
        for part, terms in contributions.clients(adapted, effort.chunk):
            with per_row_adapters(model, terms, contributions.scale):
                for name, module in monitored.items():
                    outputs = module(run.inputs[name][:, answers]).to(scores)
                    scores[:, part] += (outputs * gradients[name][0, answers].double()).sum(-1).T
    tokens, logprobs = scores.cpu(), run.logprobs.detach().double().cpu()
    return Scores(contributions.candidates, tokens, tokens.sum(0), logprobs, base_logprobs(subject, example), None)
