r"""Several answers decoded together: each is one or more rows of a batch, and each row has an adapter of its own.

Continuous batching, as in Orca (Yu et al., OSDI 2022): an answer joins between two tokens of the others, and leaves
when it has ended. A row's prompt is read alone; then its keys and values are put beside the others', padded to the
left. An ensemble's answer is a row for each part, whose probabilities are mixed:

    log p(token) = log Σ_l w_l p_l(token)

Adapters are low-rank terms of rows (llm/per_row_adapters.py), so answers of several adapters share a pass.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache

from core.composition import Composition
from core.errors import UsageError
from llm.differentiate import Seen, hooked
from llm.familiarity import keys
from llm.model import Model
from llm.per_row_adapters import Pair, per_row_adapters
from llm.residual_stream import Writes, watched_writes

_COLDEST = 1e-6
"""Below it a temperature is 0, and a nucleus the likeliest token alone."""
Factors = Mapping[str, Pair]
"""left (1, out, r), scaled, and right (1, r, in) of every adapted layer."""


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen: the likeliest at temperature 0, else drawn from the nucleus of `top_p`."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def chooser(self) -> torch.Generator:
        """The generator of one answer's draws."""
        return torch.Generator().manual_seed(self.seed)

    def choose(self, logprobs: torch.Tensor, generator: torch.Generator) -> int:
        """A token by its log probabilities (vocabulary,), on the CPU."""
        if self.temperature < _COLDEST:
            return int(logprobs.argmax())
        ordered, order = (logprobs.double() / self.temperature).softmax(-1).sort(descending=True)
        # The smallest set whose probability reaches top_p: what lies before a token must fall short of it.
        kept = ordered * (ordered.cumsum(-1) - ordered < max(self.top_p, _COLDEST))
        return int(order[torch.multinomial(kept, 1, generator=generator)])


@dataclass(eq=False)
class Answer:
    """An answer in the making: `tokens` are those chosen so far.

    `watched`: its steps come with what was written to the residual stream, which only one adapter has.
    """

    prompt: tuple[int, ...]
    adapters: tuple[tuple[float, Factors], ...]
    sampling: Sampling
    most: int
    watched: bool = False
    tokens: list[int] = field(default_factory=list)
    generator: torch.Generator = field(init=False)

    def __post_init__(self) -> None:
        """Refuse a watched mixture; raises UsageError."""
        if self.watched and len(self.adapters) > 1:
            raise UsageError("an ensemble's tokens cannot be attributed while it generates, only its whole answer")
        self.generator = self.sampling.chooser()


@dataclass(frozen=True, eq=False)
class Step:
    """One more token of an answer, and the logits (1, vocabulary) behind it; `ended` with it or before it.

    `token` is None where the model ended the answer: an end token is nobody's. A watched answer has what was written at
    the last position, and at all positions that were read for this token the inputs (positions, in) of the modules
    that familiarity asks for.
    """

    answer: Answer
    token: int | None
    logprob: float
    logits: torch.Tensor
    writes: Writes | None
    inputs: Mapping[str, torch.Tensor]
    ended: bool


@dataclass(frozen=True, eq=False)
class _Read:
    """The logits (rows, vocabulary) behind the last position, float32, and what was watched on the way."""

    logits: torch.Tensor
    writes: Writes | None
    inputs: Mapping[str, torch.Tensor]


class Decoder:
    """The answers that are decoded together on one model, by one thread."""

    def __init__(self, model: Model) -> None:
        """Nothing is decoded yet."""
        self.model = model
        self._answers: list[Answer] = []
        self._cache: Any = None
        self._mask = torch.zeros(0, 0, dtype=torch.int64)
        self._terms: tuple[list[Factors], Mapping[str, Sequence[Pair]]] = [], {}

    def __len__(self) -> int:
        return len(self._answers)

    def begin(self, answer: Answer) -> Step:
        """Read the prompt of an answer, which from now on is decoded with the others; returns its first token."""
        cache, rows = DynamicCache(), len(answer.adapters)
        tokens = torch.tensor([answer.prompt] * rows, device=self.model.device)
        step = self._chosen(answer, self._forward([answer], tokens, cache, torch.ones_like(tokens)), 0)
        if not step.ended:
            self._join(answer, cache, len(answer.prompt))
        return step

    def step(self) -> list[Step]:
        """One more token of every answer; those that have ended are decoded no further."""
        if not self._answers:
            return []
        tokens = torch.tensor([[a.tokens[-1]] for a in self._answers for _ in a.adapters], device=self.model.device)
        self._mask = torch.cat([self._mask, torch.ones(len(tokens), 1, dtype=torch.int64)], dim=1)
        read = self._forward(self._answers, tokens, self._cache, self._mask)
        steps, first = [], 0
        for answer in self._answers:
            steps.append(self._chosen(answer, read, first))
            first += len(answer.adapters)
        self.drop([step.answer for step in steps if step.ended])
        return steps

    def drop(self, answers: Sequence[Answer]) -> None:
        """Decode some answers no further."""
        owners = [answer for answer in self._answers for _ in answer.adapters]
        kept = [row for row, owner in enumerate(owners) if owner not in answers]
        if len(kept) == len(owners):
            return
        self._answers = [answer for answer in self._answers if answer not in answers]
        if not kept:
            self._cache, self._mask = None, self._mask[:0, :0]
            return
        self._mask = self._mask[kept]
        # Padding that all rows have left is no longer read.
        start = int(self._mask.any(0).int().argmax())
        self._mask = self._mask[:, start:]
        for layer in self._cache.layers:
            layer.keys, layer.values = layer.keys[kept, :, start:], layer.values[kept, :, start:]

    def _join(self, answer: Answer, cache: Any, length: int) -> None:
        """Put an answer's rows beside the others', the shorter ones padded to the left."""
        rows, before = len(answer.adapters), self._mask.shape[1]
        longest = max(before, length)
        self._mask = torch.cat([_padded(self._mask, longest, 1), _padded(torch.ones(rows, length).long(), longest, 1)])
        if self._answers:
            for mine, new in zip(self._cache.layers, cache.layers, strict=True):
                mine.keys = torch.cat([_padded(mine.keys, longest, 2), _padded(new.keys, longest, 2)])
                mine.values = torch.cat([_padded(mine.values, longest, 2), _padded(new.values, longest, 2)])
        else:
            self._cache = cache
        self._answers.append(answer)

    def _forward(self, answers: Sequence[Answer], tokens: torch.Tensor, cache: Any, mask: torch.Tensor) -> "_Read":
        """Read one or more tokens of every row; what is watched is kept if an answer asks for it."""
        network: Any = self.model.module.get_base_model()
        positions = mask.cumsum(1)[:, -tokens.shape[1] :] - 1
        asked, seen = any(a.watched for a in answers), Seen(self.model.device)
        watched = watched_writes(self.model) if asked else nullcontext()
        hooks = [(self.model.layers[name], seen.hook(name)) for name in keys(tuple(self.model.layers)) if asked]
        terms = self._terms_of([factors for answer in answers for _, factors in answer.adapters])
        with (
            torch.no_grad(), self.model.autocast(), self.model.without_adapter(),
            per_row_adapters(self.model, terms, 1.0), watched as writes, hooked(hooks),
        ):  # fmt: skip
            output = network(
                input_ids=tokens,
                # Without padding none is given: the plain causal kernel is faster.
                attention_mask=None if mask.all() else mask.to(self.model.device),
                position_ids=positions.to(self.model.device),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
        return _Read(output.logits[:, -1].float(), writes, seen.inputs)

    def _terms_of(self, rows: list[Factors]) -> Mapping[str, Sequence[Pair]]:
        """The factors of all rows side by side; made again only when the rows have changed."""
        known, terms = self._terms
        if len(known) != len(rows) or any(a is not b for a, b in zip(known, rows, strict=True)):
            if all(row is rows[0] for row in rows):
                terms = {name: [pair] for name, pair in rows[0].items()}
            else:
                terms = {name: [side_by_side([row[name] for row in rows])] for name in rows[0]}
            self._terms = rows, terms
        return terms

    def _chosen(self, answer: Answer, read: "_Read", row: int) -> Step:
        """The next token of the answer whose first row is `row`."""
        logits = read.logits[row : row + len(answer.adapters)]
        weighed = [
            math.log(share) + part.log_softmax(-1) for (share, _), part in zip(answer.adapters, logits, strict=True)
        ]
        logprobs = torch.stack(weighed).logsumexp(0).cpu()
        token = answer.sampling.choose(logprobs, answer.generator)
        watched = answer.watched and read.writes is not None
        writes = read.writes.at((slice(row, row + 1), -1)) if read.writes and watched else None
        inputs = {name: tensor[row] for name, tensor in read.inputs.items()} if watched else {}
        if token in self.model.end_tokens:
            return Step(answer, None, float(logprobs[token]), logits, writes, inputs, ended=True)
        answer.tokens.append(token)
        full = len(answer.tokens) == answer.most
        return Step(answer, token, float(logprobs[token]), logits, writes, inputs, ended=full)


def factors_of(model: Model, adapter: Composition) -> tuple[tuple[float, Factors], ...]:
    """Share and factors of each part of what is served; the model then holds the last of them."""
    found = []
    for part in adapter.parts:
        model.set_adapter(part.state)
        layers = {name: model.served(name) for name in model.layers}
        # Cloned: the model's own A is overwritten by the next adapter.
        found.append((part.share, {name: (b[None], a.clone()[None]) for name, (b, a) in layers.items()}))
    return tuple(found)


def side_by_side(pairs: Sequence[Pair]) -> Pair:
    """The pairs of several rows as one; a smaller rank is filled with zeros."""
    rank = max(right.shape[1] for _, right in pairs)
    lefts = [torch.nn.functional.pad(left, (0, rank - left.shape[2])) for left, _ in pairs]
    rights = [torch.nn.functional.pad(right, (0, 0, 0, rank - right.shape[1])) for _, right in pairs]
    return torch.cat(lefts), torch.cat(rights)


def _padded(values: torch.Tensor, length: int, axis: int) -> torch.Tensor:
    """Values with zeros before them along an axis, up to a length."""
    missing = list(values.shape)
    missing[axis] = length - values.shape[axis]
    return torch.cat([values.new_zeros(missing), values], dim=axis) if missing[axis] else values
