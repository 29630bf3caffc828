"""The loss of an adapter on records, and its gradient with respect to the adapter's factors."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from core.adapter import AdapterState
from core.errors import DataError
from llm.batches import collate, encode
from llm.determinism import reproducible
from llm.loss import answer_losses
from llm.model import Model
from llm.records import Record

_ROWS = 8
"""Packed rows a forward and backward pass."""


def loss_and_gradient(
    model: Model, adapter: AdapterState, names: Sequence[str], records: Sequence[Record], max_length: int = 256
) -> tuple[float, AdapterState]:
    """Loss in nats per answer token, and its gradient (float64) with respect to the factors `names` of the adapter.

    Raises ModelError when `adapter` does not fit the model, DataError when no record leaves an answer.
    """
    examples = [encode(model.tokenizer, record, max_length) for record in records]
    rows = model.rows(examples, max_length)
    model.set_adapter(adapter)
    nats, answers = 0.0, 0
    with reproducible(model.device, 0), _requiring_gradients(model, names) as weights:
        # Summed in float64: the rounding of a sum over many batches stays below that of one of them.
        sums = {name: np.zeros(tuple(weight.shape)) for name, weight in weights.items()}
        for first in range(0, len(rows), _ROWS):
            batch = model.entered(collate(examples, rows[first : first + _ROWS]).to(model.device))
            loss = answer_losses(model, batch).sum()
            for name, gradient in zip(sums, torch.autograd.grad(loss, list(weights.values())), strict=True):
                sums[name] += gradient.double().cpu().numpy()
            nats += loss.item()
            answers += len(batch)
    if not answers:
        raise DataError(f"expected at least one record with an answer, got {len(records)} records without")
    return nats / answers, AdapterState({name: total / answers for name, total in sums.items()})


@contextmanager
def _requiring_gradients(model: Model, names: Sequence[str]) -> Iterator[dict[str, torch.Tensor]]:
    """Inside, the named factors require gradients and no other does; the value has their weights."""
    before = {linear: linear.weight.requires_grad for _, linear in model.factors()}
    weights: dict[str, torch.Tensor] = {}
    for name, linear in model.factors():
        linear.weight.requires_grad_(name in names)
        if name in names:
            weights[name] = linear.weight
    try:
        yield weights
    finally:
        for linear, required in before.items():
            linear.weight.requires_grad_(required)
