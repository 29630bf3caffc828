"""Loss of a model on records, and greedy generation. Equal calls give equal bits."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch

from core.adapter import AdapterState
from core.errors import DataError
from llm.data import IGNORED, Record, collate, encode, encode_prompt
from llm.determinism import reproducible
from llm.loss import answer_losses
from llm.model import Model

_ROWS = 8
"""Packed rows a forward pass."""


@dataclass(frozen=True)
class Evaluation:
    """How well a model predicts the answers of some records."""

    loss: float
    """Nats per answer token."""
    tokens: int
    """Answer tokens, end tokens included."""
    exact_match: float | None = None
    """Share of records whose greedy answer equals the wanted one; None when not asked for."""

    @property
    def perplexity(self) -> float:
        """exp(loss)."""
        return math.exp(self.loss)


@dataclass(frozen=True)
class RecordLoss:
    """−log p of one record's answer, in nats, and over how many tokens."""

    nats: float
    tokens: int


def evaluate(
    model: Model,
    adapter: AdapterState | None,
    records: Sequence[Record],
    max_length: int = 256,
    limit: int | None = None,
    *,
    exact_match: bool = False,
) -> Evaluation:
    """Evaluate the first `limit` records with `adapter`, or with the bare base when it is None.

    Raises ModelError when `adapter` does not fit the model, DataError when there are no records.
    """
    chosen = records[:limit]
    if not chosen:
        raise DataError("got no records to evaluate, wanted at least one")
    losses = record_losses(model, adapter, chosen, max_length)
    tokens = sum(loss.tokens for loss in losses)
    matched = _exact_match(model, adapter, chosen, max_length) if exact_match else None
    return Evaluation(sum(loss.nats for loss in losses) / tokens, tokens, matched)


def record_losses(
    model: Model, adapter: AdapterState | None, records: Sequence[Record], max_length: int = 256
) -> tuple[RecordLoss, ...]:
    """Loss of each record's answer, in the order given, summed in float64."""
    examples = [encode(model.tokenizer, record, max_length) for record in records]
    rows = model.rows(examples, max_length)
    nats, tokens = (
        torch.zeros(len(records), dtype=torch.float64),
        torch.zeros(len(records), dtype=torch.int64),
    )
    with _inference(model, adapter):
        for first in range(0, len(rows), _ROWS):
            batch = collate(examples, rows[first : first + _ROWS])
            owners = batch.owners[batch.targets != IGNORED]
            losses = answer_losses(model, batch.to(model.device)).double().cpu()
            nats.index_add_(0, owners, losses)
            tokens.index_add_(0, owners, torch.ones_like(owners))
    return tuple(RecordLoss(n, t) for n, t in zip(nats.tolist(), tokens.tolist(), strict=True))


def generate(model: Model, adapter: AdapterState | None, prompt: str, max_new_tokens: int = 64) -> tuple[int, ...]:
    """Return the tokens that follow `prompt` greedily, the end token included when it came."""
    return _generate(model, adapter, encode_prompt(model.tokenizer, prompt), max_new_tokens)


def _generate(model: Model, adapter: AdapterState | None, prompt: Sequence[int], limit: int) -> tuple[int, ...]:
    tokens = torch.tensor([prompt], device=model.device)
    with _inference(model, adapter), model.autocast():
        output = model.module.get_base_model().generate(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=limit,
            do_sample=False,
            pad_token_id=model.tokenizer.eos_token_id,
        )
    return tuple(output[0, len(prompt) :].tolist())


def _exact_match(model: Model, adapter: AdapterState | None, records: Sequence[Record], max_length: int) -> float:
    matched = 0
    for record in records:
        example = encode(model.tokenizer, record, max_length)
        prompt, wanted = example.tokens[: example.prompt_length], example.tokens[example.prompt_length :]
        matched += _generate(model, adapter, prompt, len(wanted)) == wanted
    return matched / len(records)


@contextmanager
def _inference(model: Model, adapter: AdapterState | None) -> Iterator[None]:
    if adapter is not None:
        model.set_adapter(adapter)
    with (
        reproducible(model.device, 0),
        torch.no_grad(),
        model.without_adapter() if adapter is None else nullcontext(),
    ):
        yield
