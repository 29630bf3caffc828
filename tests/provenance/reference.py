"""Slow ways to the same numbers, written from the formulas: what the fast ones are compared with."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from benchmarks.provenance.naive import client_adapters, naive_protoken
from core.canonical import Address
from llm.batches import Example
from llm.differentiate import Hook, hooked
from provenance.contributions import Contributions
from provenance.method import Subject


def paper_scores(subject: Subject, example: Example, clients: Sequence[Address]) -> torch.Tensor:
    """ProToken's scores (T, K) as its paper finds them."""
    adapters = client_adapters(subject.contributions)
    return naive_protoken(subject, example, [adapters[client] for client in clients])


def dense_contributions(contributions: Contributions) -> dict[str, torch.Tensor]:
    """s Σ L R of every organisation, (K, out, in), by module."""
    ((_, terms),) = contributions.chunks(len(contributions.organisations))
    count = len(contributions.organisations)
    return {
        name: contributions.scale * sum((t.left @ t.right).expand(count, -1, -1) for t in found)  # type: ignore[misc]
        for name, found in terms.items()
    }


def in_float64(subject: Subject) -> Subject:
    """The same on a copy of its model that computes in float64 throughout: what differences are taken of."""
    module = copy.deepcopy(subject.model.module).double()
    for part in module.modules():
        if type(part).__name__.endswith("RMSNorm"):  # computes in float32 whatever it is given
            part.forward = partial(_rms_norm, part)
    return replace(subject, model=replace(subject.model, module=module))


def _rms_norm(norm: torch.nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    return hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon) * norm.weight


def token_logprobs(subject: Subject, example: Example, extra: torch.Tensor | None = None) -> torch.Tensor:
    """Log p (T,) with Σ_k extra_k δ_k added: a plain forward pass with the contributions as dense matrices."""
    model = subject.model
    matrices = dense_contributions(subject.contributions)

    def adding(matrix: torch.Tensor) -> Hook:
        def add(_module: torch.nn.Module, given: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
            if extra is None:
                return output
            weights = torch.einsum("...k,koi->...oi", extra.to(output.dtype), matrix.to(output.dtype))
            return output + torch.einsum("...oi,nti->nto" if extra.dim() == 1 else "toi,nti->nto", weights, given[0])

        return add

    network = model.module.get_base_model()
    with model.autocast(), hooked([(model.layers[name], adding(matrix)) for name, matrix in matrices.items()]):
        logits = network(input_ids=torch.tensor([example.tokens]), use_cache=False).logits[0]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    wanted = torch.tensor(example.tokens[example.prompt_length :])
    return logits.log_softmax(-1)[example.prompt_length - 1 : -1].gather(-1, wanted[:, None])[:, 0]


def own_position_gradients(subject: Subject, example: Example) -> torch.Tensor:
    """(T, K) by a backward pass a token: of an extra weight for each position and organisation, the token's own row."""
    extra = torch.zeros(len(example), len(subject.contributions.organisations), requires_grad=True)
    logprobs = token_logprobs(subject, example, extra)
    rows = []
    for t, logprob in enumerate(logprobs):
        (gradient,) = torch.autograd.grad(logprob, extra, retain_graph=True)
        rows.append(gradient[example.prompt_length - 1 + t])
    return torch.stack(rows)


def total_gradients(subject: Subject, example: Example) -> torch.Tensor:
    """(T, K) by a backward pass a token, with one extra weight an organisation at all positions."""
    extra = torch.zeros(len(subject.contributions.organisations), requires_grad=True)
    logprobs = token_logprobs(subject, example, extra)
    return torch.stack([torch.autograd.grad(logprob, extra, retain_graph=True)[0] for logprob in logprobs])
