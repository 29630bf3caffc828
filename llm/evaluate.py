"""Loss of a model on records, and greedy generation. Equal calls give equal bits."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy

from core.adapter import AdapterState
from core.errors import DataError
from llm.data import IGNORED, Record, collate, encode, encode_prompt
from llm.determinism import reproducible
from llm.loss import answer_logits
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
    exact_match: float
    """Share of records whose greedy answer is the wanted one: each of its tokens is the likeliest after those before.

    No generation is needed: as long as a greedy answer is right, it continues the very tokens that the loss looks at.
    """

    @property
    def perplexity(self) -> float:
        """exp(loss)."""
        return math.exp(self.loss)


@dataclass(frozen=True)
class RecordLoss:
    """−log p of one record's answer, in nats, over how many tokens, and how many of those were the likeliest.

    `tail` is how many of its last tokens were all the likeliest: what the model says itself once it has those before.
    """

    nats: float
    tokens: int
    hits: int
    tail: int


def evaluate(
    model: Model,
    adapter: AdapterState | None,
    records: Sequence[Record],
    max_length: int = 256,
    limit: int | None = None,
) -> Evaluation:
    """Evaluate the first `limit` records with `adapter`, or with the bare base when it is None.

    Raises ModelError when `adapter` does not fit the model, DataError when there are no records.
    """
    chosen = records[:limit]
    if not chosen:
        raise DataError("got no records to evaluate, wanted at least one")
    losses = record_losses(model, adapter, chosen, max_length)
    tokens = sum(loss.tokens for loss in losses)
    matched = sum(loss.hits == loss.tokens for loss in losses)
    return Evaluation(sum(loss.nats for loss in losses) / tokens, tokens, matched / len(losses))


def record_losses(
    model: Model, adapter: AdapterState | None, records: Sequence[Record], max_length: int = 256
) -> tuple[RecordLoss, ...]:
    """Loss of each record's answer, in the order given, summed in float64."""
    examples = [encode(model.tokenizer, record, max_length) for record in records]
    rows = model.rows(examples, max_length)
    nats = torch.zeros(len(records), dtype=torch.float64)
    tokens, hits, tail = torch.zeros(3, len(records), dtype=torch.int64)
    with _inference(model, adapter):
        for first in range(0, len(rows), _ROWS):
            batch = collate(examples, rows[first : first + _ROWS])
            owners = batch.owners[batch.targets != IGNORED]
            logits, wanted = answer_logits(model, batch.to(model.device))
            nats.index_add_(0, owners, cross_entropy(logits, wanted, reduction="none").double().cpu())
            tokens.index_add_(0, owners, torch.ones_like(owners))
            hit = (logits.argmax(-1) == wanted).long().cpu()
            hits.index_add_(0, owners, hit)
            for owner in set(owners.tolist()):
                tail[owner] = hit[owners == owner].flip(0).cumprod(0).sum()
    columns = (column.tolist() for column in (nats, tokens, hits, tail))
    return tuple(RecordLoss(*found) for found in zip(*columns, strict=True))


def generate(model: Model, adapter: AdapterState | None, prompt: str, max_new_tokens: int = 64) -> tuple[int, ...]:
    """Return the tokens that follow `prompt` greedily, the end token included when it came."""
    tokens = torch.tensor([encode_prompt(model.tokenizer, prompt)], device=model.device)
    with _inference(model, adapter), model.autocast():
        output = model.module.get_base_model().generate(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=model.tokenizer.eos_token_id,
        )
    return tuple(output[0, tokens.shape[1] :].tolist())


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
