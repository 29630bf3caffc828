"""Loss of a model on records, and greedy generation. Equal calls give equal bits.

Measured is the bare base, an adapter, or a composition of several (core/composition.py): an ensemble's probabilities
are mixed in log space, token by token; routing chooses an adapter for each prompt before anything is answered, the one
most familiar with it (llm/familiarity.py), of equals the first.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig

from core.adapter import AdapterState
from core.composition import Composition, Part
from core.errors import DataError
from core.model_selection import perplexity
from llm.batches import IGNORED, Batch, Example, collate, encode, encode_prompt
from llm.determinism import reproducible
from llm.familiarity import familiarities
from llm.loss import answer_logits
from llm.model import Model
from llm.records import Record

Found = TypeVar("Found")

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
        return perplexity(self.loss)


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
    prompts = [example.tokens[: example.prompt_length] for example in examples]

    def losses(parts: Sequence[Part], indices: Sequence[int]) -> tuple[RecordLoss, ...]:
        return _losses(model, parts, [examples[index] for index in indices], max_length)

    return tuple(_by_part(model, adapter, prompts, losses))


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
    return greedy_answers(model, adapter, [prompt], max_new_tokens)[0]


def greedy_answers(
    model: Model, adapter: Adapters, prompts: Sequence[str], max_new_tokens: int = 64
) -> list[tuple[int, ...]]:
    """Return the tokens that follow each prompt greedily, the end token included when it came.

    Prompts that one adapter answers pass the model together, which costs little more than one of them: a quantised
    weight is unpacked once for all. Their padding moves logits in the last bit, so that a near tie of two tokens may
    be decided otherwise than alone.
    """
    starts = [encode_prompt(model.tokenizer, prompt) for prompt in prompts]

    def answers(parts: Sequence[Part], indices: Sequence[int]) -> list[tuple[int, ...]]:
        if len(parts) > 1:
            return [_mixed_answer(model, parts, starts[index], max_new_tokens) for index in indices]
        groups = [indices[first : first + _ROWS] for first in range(0, len(indices), _ROWS)]
        with _inference(model, parts), model.autocast():
            return [a for group in groups for a in _continued(model, [starts[i] for i in group], max_new_tokens)]

    return _by_part(model, adapter, starts, answers)


def _continued(model: Model, starts: Sequence[tuple[int, ...]], most: int) -> list[tuple[int, ...]]:
    """The greedy continuations of some rows by the adapter in place, each up to the token that ends it."""
    # Behind its end token a row is padded with any token; without end tokens none is.
    padding, longest = model.tokenizer.eos_token_id or 0, max(map(len, starts))
    # To the left, so that every answer begins at the same position.
    rows = torch.tensor([[padding] * (longest - len(start)) + list(start) for start in starts], device=model.device)
    mask = torch.tensor([[0] * (longest - len(start)) + [1] * len(start) for start in starts], device=model.device)
    network: Any = model.module.get_base_model()
    published = network.generation_config
    # A base may be published with penalties and forbidden tokens: greedy is the likeliest token, here as when serving.
    network.generation_config = GenerationConfig(eos_token_id=published.eos_token_id)
    try:
        output = network.generate(
            input_ids=rows, attention_mask=mask, max_new_tokens=most, do_sample=False, pad_token_id=padding
        )
    finally:
        network.generation_config = published
    answers = []
    for row in output[:, longest:].tolist():
        end = next((index + 1 for index, token in enumerate(row) if token in model.end_tokens), len(row))
        answers.append(tuple(row[:end]))
    return answers


def _by_part(
    model: Model,
    adapter: Adapters,
    prompts: Sequence[tuple[int, ...]],
    find: Callable[[Sequence[Part], Sequence[int]], Sequence[Found]],
) -> list[Found]:
    """What `find` finds for the prompts at some indices with the parts that answer these, in the order of prompts."""
    if not isinstance(adapter, Composition) or adapter.kind != "routing":
        return list(find(_parts(adapter), range(len(prompts))))
    chosen, found = route(model, adapter, prompts), dict[int, Found]()
    for number in sorted(set(chosen)):
        routed = [index for index, choice in enumerate(chosen) if choice == number]
        found |= zip(routed, find(adapter.parts[number : number + 1], routed), strict=True)
    return [found[index] for index in range(len(prompts))]


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
