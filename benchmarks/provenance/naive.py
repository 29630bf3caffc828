"""ProToken as published: a full forward and backward pass for each token, a replay of each module for each client.

The paper keeps K + 1 models. Here one model takes on the clients' adapters in turn, each once for all tokens, so that
swapping costs next to nothing; a backward pass ends at the last block. Both favour this side of a comparison.
"""

from collections.abc import Sequence

import torch

from core.adapter import AdapterState
from core.canonical import Address
from llm.batches import Example
from llm.differentiate import Seen, hooked
from llm.residual_stream import residual_stream
from provenance.contributions import Contributions
from provenance.method import Subject


def client_adapters(contributions: Contributions) -> dict[Address, AdapterState]:
    """The adapter that each client of the last round trained, unweighted."""
    found = {}
    for lane in contributions.lanes:
        for update in lane[-1].updates:
            trained = contributions.rule.trained(lane[-1].before(), update.state)
            found[update.organisation] = contributions.rule.adapter(trained, contributions.fresh)
    return found


def naive_protoken(subject: Subject, example: Example, adapters: Sequence[AdapterState]) -> torch.Tensor:
    """Scores (T, K) of the tokens for clients with these adapters; the model holds the served adapter, and keeps it."""
    model = subject.model
    network = model.module.get_base_model()
    stream = residual_stream(model)
    names = [*stream.last_block, "lm_head"]
    modules = dict(network.named_modules()) | {"lm_head": stream.head}
    inputs, gradients = [], []
    for stop in range(example.prompt_length, len(example)):
        seen = Seen(model.device)
        tokens = torch.tensor([example.tokens[:stop]], device=model.device)
        with model.autocast(), hooked([(modules[name], seen.hook(name)) for name in names]):
            logits = network(input_ids=tokens, use_cache=False).logits
        chosen = logits[0, -1, example.tokens[stop]]
        gradients.append(torch.autograd.grad(chosen, [seen.outputs[name] for name in names]))
        inputs.append([seen.inputs[name] for name in names])
    scores = torch.zeros(len(inputs), len(adapters), dtype=torch.float64)
    for client, adapter in enumerate(adapters):
        # Swapping once for all tokens favours this side: the paper keeps a model for each client.
        model.set_adapter(adapter)
        with torch.no_grad(), model.autocast():
            for token, (given, found) in enumerate(zip(inputs, gradients, strict=True)):
                for name, x, g in zip(names, given, found, strict=True):
                    scores[token, client] += (modules[name](x).double() * g.double()).sum().cpu()
    model.set_adapter(subject.adapter)
    return scores
