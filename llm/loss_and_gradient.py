"""The loss of an adapter on records and its gradient with respect to the adapter: which way it would have to move."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from core.adapter import AdapterState
from core.errors import DataError
from llm.data import Record, collate, encode
from llm.determinism import reproducible
from llm.loss import answer_losses
from llm.model import Model

_ROWS = 8
"""Packed rows a forward and backward pass."""


def slope(
    model: Model, adapter: AdapterState, names: Sequence[str], records: Sequence[Record], max_length: int = 256
) -> tuple[float, AdapterState]:
    """Loss in nats per answer token, and its gradient (float64) at the factors `names` of the adapter.

    Raises ModelError when `adapter` does not fit the model, DataError when no record leaves an answer.
    """
    examples = [encode(model.tokenizer, record, max_length) for record in records]
    rows = model.rows(examples, max_length)
    model.set_adapter(adapter)
    nats, answers = 0.0, 0
    with reproducible(model.device, 0), _asking(model, names) as weights:
        sums = {name: np.zeros(tuple(weight.shape)) for name, weight in weights.items()}
        for first in range(0, len(rows), _ROWS):
            batch = collate(examples, rows[first : first + _ROWS]).to(model.device)
            loss = answer_losses(model, batch).sum()
            for name, gradient in zip(sums, torch.autograd.grad(loss, list(weights.values())), strict=True):
                sums[name] += gradient.double().cpu().numpy()
            nats += loss.item()
            answers += len(batch)
    if not answers:
        raise DataError(f"got {len(records)} records without an answer, wanted at least one")
    return nats / answers, AdapterState({name: total / answers for name, total in sums.items()})


@contextmanager
def _asking(model: Model, names: Sequence[str]) -> Iterator[dict[str, torch.Tensor]]:
    """Inside, the named factors ask for gradients and no other does; the yielded weights are theirs."""
    wanted, before = set(names), {linear: linear.weight.requires_grad for _, linear in model.factors()}
    found: dict[str, torch.Tensor] = {}
    for name, linear in model.factors():
        linear.weight.requires_grad_(name in wanted)
        if name in wanted:
            found[name] = linear.weight
    try:
        yield found
    finally:
        for linear, asked in before.items():
            linear.weight.requires_grad_(asked)
