"""Loss of a model on records, and greedy generation. Equal calls give equal bits.

Measured is the bare base, an adapter, or a composition of several (core/composition.py): an ensemble's probabilities
are mixed in log space, token by token; routing chooses an adapter for each prompt before anything is answered, the one
most familiar with it (llm/familiarity.py), of equals the first.
"""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from core.adapter import AdapterState
from core.composition import Composition, Part
from core.errors import DataError
from llm.batches import IGNORED, Batch, Example, collate, encode, encode_prompt
from llm.determinism import reproducible
from llm.familiarity import familiarities
from llm.loss import answer_logits
from llm.model import Model
from llm.records import Record

_ROWS = 8
"""Packed rows a forward pass."""

Adapters = AdapterState | Composition | None
"""One adapter on the base, several, or none."""


@dataclass(frozen=True)
class Evaluation:
    """How well a model predicts the answers of some records."""

    loss: float
    """Nats per answer token."""
    tokens: int
    """Answer tokens, end tokens included."""
    exact_match: float
    """Share of records whose greedy answer is the record's: each of its tokens is the likeliest after those before.

    No generation is needed: as long as a greedy answer is right, it continues the very tokens that the loss looks at.
    """

    @property
    def perplexity(self) -> float:
        """exp(loss), infinite from where float64 ends."""
        return math.exp(self.loss) if self.loss < math.log(sys.float_info.max) else math.inf


@dataclass(frozen=True)
class RecordLoss:
    """−log p of one record's answer, in nats, over how many tokens, and how many of those were the likeliest.

    `tail` is how many of its last tokens were all the likeliest, the token that ends it aside: the model continues the
    answer with them by itself.
    """

    nats: float
    tokens: int
    hits: int
    tail: int


def evaluate(
    model: Model,
    adapter: Adapters,
    records: Sequence[Record],
    max_length: int = 256,
    limit: int | None = None,
) -> Evaluation:
    """Evaluate the first `limit` records with `adapter`, or with the bare base when it is None.

    Raises ModelError when `adapter` does not fit the model, DataError when there are no records.
    """
    chosen = records[:limit]
    if not chosen:
        raise DataError("expected at least one record to evaluate, got none")
    losses = record_losses(model, adapter, chosen, max_length)
    tokens = sum(loss.tokens for loss in losses)
    matched = sum(loss.hits == loss.tokens for loss in losses)
    return Evaluation(sum(loss.nats for loss in losses) / tokens, tokens, matched / len(losses))


def record_losses(
    model: Model, adapter: Adapters, records: Sequence[Record], max_length: int = 256
) -> tuple[RecordLoss, ...]:
    """Loss of each record's answer, in the order given, summed in float64."""
    examples = [encode(model.tokenizer, record, max_length) for record in records]
    if not isinstance(adapter, Composition) or adapter.kind != "routing":
        return _losses(model, _parts(adapter), examples, max_length)
    chosen = route(model, adapter, [example.tokens[: example.prompt_length] for example in examples])
    losses: dict[int, RecordLoss] = {}
    for number, part in enumerate(adapter.parts):
        routed = [index for index, choice in enumerate(chosen) if choice == number]
        losses |= zip(routed, _losses(model, (part,), [examples[index] for index in routed], max_length), strict=True)
    return tuple(losses[index] for index in range(len(examples)))


def route(model: Model, adapters: Composition, prompts: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Index of the part that answers each prompt, given as tokens: the most familiar with it, of equals the first.

    A part that is zero answers only where all are.
    """
    if len(adapters.parts) == 1:
        return (0,) * len(prompts)
    # By the bare base: under one of the adapters the inputs, and with them the choice, would be that adapter's.
    with _inference(model, ()):
        return tuple(known.index(max(known)) for known in familiarities(model, adapters.states, prompts))


def generate(model: Model, adapter: Adapters, prompt: str, max_new_tokens: int = 64) -> tuple[int, ...]:
    """Return the tokens that follow `prompt` greedily, the end token included when it came."""
    start, parts = encode_prompt(model.tokenizer, prompt), _parts(adapter)
    if isinstance(adapter, Composition) and adapter.kind == "routing":
        parts = (adapter.parts[route(model, adapter, [start])[0]],)
    if len(parts) > 1:
        return _mixed_answer(model, parts, start, max_new_tokens)
    tokens = torch.tensor([start], device=model.device)
    with _inference(model, parts), model.autocast():
        output = model.module.get_base_model().generate(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=model.tokenizer.eos_token_id,
        )
    return tuple(output[0, tokens.shape[1] :].tolist())


def _parts(adapter: Adapters) -> tuple[Part, ...]:
    """The parts that are mixed: none for the bare base, else one or more."""
    if adapter is None:
        return ()
    return adapter.parts if isinstance(adapter, Composition) else (Part(1.0, adapter),)


def _losses(
    model: Model, parts: Sequence[Part], examples: Sequence[Example], max_length: int
) -> tuple[RecordLoss, ...]:
    """Loss of each example's answer under the mixture of some adapters, or the bare base."""
    rows = model.rows(examples, max_length)
    nats = torch.zeros(len(examples), dtype=torch.float64)
    tokens, hits, tail = torch.zeros(3, len(examples), dtype=torch.int64)
    ends = torch.tensor(sorted(model.end_tokens))
    with _inference(model, parts):
        for first in range(0, len(rows), _ROWS):
            batch = collate(examples, rows[first : first + _ROWS])
            owners = batch.owners[batch.targets != IGNORED]
            logits, targets = _predicted(model, parts, model.entered(batch.to(model.device)))
            nats.index_add_(0, owners, cross_entropy(logits, targets, reduction="none").double().cpu())
            tokens.index_add_(0, owners, torch.ones_like(owners))
            hit = (logits.argmax(-1) == targets).long().cpu()
            hits.index_add_(0, owners, hit)
            spoken = ~torch.isin(targets.cpu(), ends)
            for owner in set(owners.tolist()):
                tail[owner] = hit[spoken & (owners == owner)].flip(0).cumprod(0).sum()
    columns = (column.tolist() for column in (nats, tokens, hits, tail))
    return tuple(RecordLoss(*row) for row in zip(*columns, strict=True))


def _predicted(model: Model, parts: Sequence[Part], batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """The answers' logits (log probabilities, of a mixture) and their tokens."""
    if len(parts) < 2:
        return answer_logits(model, batch)
    return _mixed(model, parts, lambda _: answer_logits(model, batch)[0]), batch.targets[batch.targets != IGNORED]


def _mixed(model: Model, parts: Sequence[Part], logits: Callable[[int], torch.Tensor]) -> torch.Tensor:
    """Return log Σ_l w_l p_l over the last axis; `logits` computes those of part l, which the model then holds."""
    # In log space: the probabilities of whole vocabularies underflow float32.
    total = torch.tensor(-math.inf, device=model.device)
    for number, part in enumerate(parts):
        model.set_adapter(part.state)
        total = torch.logaddexp(total, math.log(part.share) + logits(number).float().log_softmax(-1))
    return total


def _mixed_answer(model: Model, parts: Sequence[Part], prompt: Sequence[int], most: int) -> tuple[int, ...]:
    """The likeliest token of the mixture, again and again; each part keeps its own keys and values."""
    network: Any = model.module.get_base_model()
    caches: list[Any] = [None] * len(parts)
    seen = torch.tensor([prompt], device=model.device)
    answer: list[int] = []

    def last(number: int) -> torch.Tensor:
        output = network(input_ids=seen, past_key_values=caches[number], use_cache=True, logits_to_keep=1)
        caches[number] = output.past_key_values
        last_logits: torch.Tensor = output.logits[0, -1]
        return last_logits

    with _inference(model, parts), model.autocast():
        while len(answer) < most and not model.end_tokens.intersection(answer[-1:]):
            seen = _mixed(model, parts, last).argmax().view(1, 1)
            answer.append(int(seen))
    return tuple(answer)


@contextmanager
def _inference(model: Model, parts: Sequence[Part]) -> Iterator[None]:
    """Inside, no gradients, and a single part in place; of several parts, `_mixed` sets each in turn."""
    if len(parts) == 1:
        model.set_adapter(parts[0].state)
    with (
        reproducible(model.device, 0),
        torch.no_grad(),
        nullcontext() if parts else model.without_adapter(),
    ):
        yield
