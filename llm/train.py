"""Local training: a pure function of (base model, parent adapter, data, configuration, seed).

Decisions:

- A fresh optimiser each call, one thread, every generator seeded from `seed` and restored afterwards: the same call
  gives the same bytes in one software and hardware environment.
- The learning rate follows one cosine over the whole federation; a call knows only where on it it starts.
- A batch is `batch_size` packed rows. The loss of a step is the mean over all its answer tokens, however they fall
  into micro-batches.
- No weight decay: it would shrink what the others have contributed, and move columns that are meant to stay.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from itertools import count, islice
from typing import cast

import numpy as np
import torch
from accelerate import Accelerator
from transformers.utils import is_bitsandbytes_available

from core.adapter import AdapterState
from core.errors import ConfigError, DataError
from llm.batches import Batch, Example, collate, encode
from llm.determinism import reproducible
from llm.loss import answer_losses
from llm.model import Model
from llm.records import Record

_WARM_UP = 0.03
"""Part of the federation's steps over which the learning rate rises linearly."""

Objective = Callable[[Model, Batch], torch.Tensor]
"""(model, micro-batch on its device) -> the minimised loss, summed over the micro-batch's answer tokens."""


def likelihood(model: Model, batch: Batch) -> torch.Tensor:
    """−log p of all answer tokens, in nats: learning."""
    return answer_losses(model, batch).sum()


@dataclass(frozen=True)
class TrainConfig:
    """How much and how to train; every field is checked here."""

    steps: int
    """Optimiser steps of this call."""
    batch_size: int = 8
    """Packed rows a micro-batch."""
    max_length: int = 256
    """Tokens a row."""
    learning_rate: float = 3e-3
    """Peak of the cosine."""
    first_step: int = 0
    """Steps of the federation before this call."""
    total_steps: int = 0
    """Steps of the whole federation; 0 means first_step + steps."""
    accumulation: int = 1
    """Micro-batches a step."""
    train_a: bool = False
    """Train A as well as B; off for frozen-a."""
    columns: int | None = None
    """Train only so many columns of B (rows of A); None means all from first_column on."""
    first_column: int = 0
    """The first column trained; a stacked adapter trains its last block only."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    dropout: float = 0.0
    """The part of an adapter's inputs that are dropped at random."""
    clip_norm: float = 1.0
    """Largest l2 norm of a step's gradient."""

    def __post_init__(self) -> None:
        """Raise ConfigError for a value out of its range."""
        for name in ("steps", "batch_size", "accumulation"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.max_length < 2:
            raise ConfigError(f"max_length: expected at least 2 tokens, got {self.max_length}")
        if not (self.learning_rate > 0 and self.clip_norm > 0):
            raise ConfigError(f"learning_rate {self.learning_rate} and clip_norm {self.clip_norm} must be positive")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout: expected 0 to below 1, got {self.dropout}")
        if self.first_step < 0 or 0 < self.total_steps < self.first_step + self.steps:
            raise ConfigError(f"steps {self.first_step} + {self.steps} do not fit into total_steps {self.total_steps}")
        if self.first_column < 0 or (self.columns is not None and self.columns < 1):
            raise ConfigError(
                f"columns: expected at least 1, from 0 or later, got {self.columns} from {self.first_column}"
            )

    def rate(self, step: int) -> float:
        """Learning rate of this call's `step`: linear warm-up, then a cosine down to zero at the federation's end."""
        total = self.total_steps or self.first_step + self.steps
        position = self.first_step + step
        warm_up = max(1, math.ceil(_WARM_UP * total))
        cosine = 0.5 * (1 + math.cos(math.pi * position / total))
        return self.learning_rate * cosine * min(1.0, (position + 1) / warm_up)


@dataclass(frozen=True)
class TrainResult:
    """The result of a call of `train`."""

    adapter: AdapterState
    """The adapter after the last step."""
    loss: float
    """Mean of the minimised loss over all answer tokens seen, by default nats, each measured before its step."""
    tokens: int
    """Tokens processed, prompts included, padding excluded."""
    examples: int
    """Examples processed."""
    seconds: float
    """Wall-clock time of the call."""


def train(
    model: Model,
    records: Sequence[Record],
    parent: AdapterState,
    config: TrainConfig,
    seed: int,
    objective: Objective = likelihood,
) -> TrainResult:
    """Train `parent` on `records` for `config.steps` steps; leaves the model holding the trained adapter.

    Raises ModelError when `parent` does not fit the model, DataError when no record leaves an answer to learn.
    """
    started = time.perf_counter()
    with reproducible(model.device, seed), training_mode(model, config):
        model.set_adapter(parent)
        loop = Loop(model, config, objective)
        for step, batches in enumerate(draw_steps(model, records, config, seed)):
            loop.step(batches, config.rate(step))
    return loop.result(started)


def untrained(adapter: AdapterState) -> TrainResult:
    """The result of training on no records: the same adapter, and no loss."""
    return TrainResult(adapter, math.nan, 0, 0, 0.0)


class Loop:
    """The optimiser of one call of `train` and its running totals; starts from the adapter the model holds."""

    def __init__(self, model: Model, config: TrainConfig, objective: Objective = likelihood) -> None:
        self.model, self.config, self.objective = model, config, objective
        self.masks = _trainable(model, config)
        self.accelerator = Accelerator(cpu=model.device.type == "cpu", mixed_precision="no")
        self.optimizer = adamw(list(self.masks), model.device)
        self.nats, self.answers, self.tokens, self.examples = 0.0, 0, 0, 0

    def step(self, batches: Sequence[Batch], rate: float) -> None:
        """One optimiser step over the micro-batches `batches`."""
        answers = sum(len(batch) for batch in batches)
        for batch in batches:
            # Divided by the step's answers, not the micro-batch's: the mean must not depend on how they are divided.
            self.accumulate(batch, self.objective, answers)
        self.answers += answers
        self.descend(rate)

    def accumulate(self, batch: Batch, objective: Objective, divisor: int = 1) -> None:
        """Add a micro-batch's gradient, over the divisor, and count the batch."""
        loss = objective(self.model, self.model.entered(batch.to(self.model.device)))
        self.accelerator.backward(loss / divisor)
        self.nats += loss.item()
        self.tokens += int((batch.owners >= 0).sum())
        self.examples += int((batch.positions == 0).logical_and(batch.owners >= 0).sum())

    def descend(self, rate: float) -> None:
        """Move the trained columns by the gradient that they hold, and clear it."""
        # Before clipping: the norm is that of the columns that are trained.
        for parameter, mask in self.masks.items():
            if mask is not None and parameter.grad is not None:
                parameter.grad.mul_(mask)
        self.accelerator.clip_grad_norm_(list(self.masks), self.config.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()

    def result(self, started: float) -> TrainResult:
        """What the loop has come to; it began at `started`, by the performance counter."""
        loss = self.nats / self.answers if self.answers else math.nan
        adapter = self.model.get_adapter()
        return TrainResult(adapter, loss, self.tokens, self.examples, time.perf_counter() - started)


def adamw(parameters: list[torch.nn.Parameter], device: torch.device) -> torch.optim.Optimizer:
    """AdamW without weight decay: on a GPU the paged one of bitsandbytes, with states of 8 bits, where it is there."""
    if device.type == "cuda" and is_bitsandbytes_available():
        # Imported here because a GPU image without bitsandbytes can still train an unquantised base.
        paged: torch.optim.Optimizer = import_module("bitsandbytes.optim").PagedAdamW8bit(parameters, weight_decay=0.0)
        return paged
    return torch.optim.AdamW(parameters, weight_decay=0.0, fused=True)


@contextmanager
def training_mode(model: Model, config: TrainConfig) -> Iterator[None]:
    """Inside, the model is in training mode, with the configuration's dropout and gradient checkpointing."""
    network = model.module.get_base_model()
    model.module.train()
    dropped = [layer.lora_dropout for layer in model.layers.values()]
    if config.dropout:
        # In the layers themselves, and not in the model's specification: one model serves runs of several settings.
        for places in dropped:
            places.update(dict.fromkeys(places, torch.nn.Dropout(config.dropout)))
    if config.gradient_checkpointing:
        network.activation_checkpointing_enable()
    try:
        yield
    finally:
        for places in dropped:
            places.update(dict.fromkeys(places, torch.nn.Identity()))
        if config.gradient_checkpointing:
            network.activation_checkpointing_disable()
        model.module.eval()


def _trainable(model: Model, config: TrainConfig) -> dict[torch.nn.Parameter, torch.Tensor | None]:
    """Set requires_grad on the factors; return the trained ones with a 0/1 mask of their trained columns."""
    masks: dict[torch.nn.Parameter, torch.Tensor | None] = {}
    for name, linear in model.factors():
        axis = 0 if name.endswith("lora_A") else 1
        weight = cast(torch.nn.Parameter, linear.weight)
        weight.requires_grad_(config.train_a or axis == 1)
        if not weight.requires_grad:
            continue
        rank = weight.shape[axis]
        last = rank if config.columns is None else config.first_column + config.columns
        if config.first_column >= rank or last > rank:
            raise ConfigError(f"columns: expected at most those of rank {rank}, got {config.first_column} to {last}")
        if config.first_column == 0 and last == rank:
            masks[weight] = None
        else:
            mask = torch.zeros(rank, dtype=weight.dtype, device=weight.device)
            mask[config.first_column : last] = 1
            masks[weight] = mask.unsqueeze(1 - axis)
    return masks


def draw_steps(model: Model, records: Sequence[Record], config: TrainConfig, seed: int) -> Iterator[list[Batch]]:
    """Yield the micro-batches of each step, in rows of records drawn without replacement, epoch by epoch.

    Raises DataError when no record leaves an answer to learn.
    """
    needed = config.steps * config.accumulation * config.batch_size
    examples = list(_draw(model, records, config.max_length, seed, needed))
    rows = model.rows(examples, config.max_length)
    batches = (
        collate(examples, rows[first : first + config.batch_size]) for first in range(0, needed, config.batch_size)
    )
    while batch := list(islice(batches, config.accumulation)):
        yield batch


def steps_of(model: Model, records: Sequence[Record], epochs: float, rows: int, max_length: int, most: int) -> int:
    """Return how many steps of `rows` packed rows `epochs` passes over the records take, 1 to `most`; 0 epochs: `most`.

    Records are read only until it is clear that `most` are too few.
    """
    if epochs <= 0:
        return most
    tokens, step = 0.0, float(rows * max_length)
    for example in answered(model, records, max_length):
        tokens += epochs * _room_of(model, example, max_length)
        if tokens > step * (most - 1):
            return most
    return max(1, math.ceil(tokens / step))


def _draw(model: Model, records: Sequence[Record], max_length: int, seed: int, rows: int) -> Iterator[Example]:
    """Draw examples in a seeded permutation an epoch, until they fill at least `rows` rows."""
    # numpy's generator and not torch's: how many records are drawn must not shift the draws of the model.
    rng = np.random.default_rng(seed)
    room = rows * max_length
    for _epoch in count():
        before = room
        shuffled = (records[index] for index in rng.permutation(len(records)).tolist())
        for example in answered(model, shuffled, max_length):
            room -= _room_of(model, example, max_length)
            yield example
            if room <= 0:
                return
        if room == before:
            raise DataError(f"expected a record that leaves an answer to learn, got {len(records)} records without")


def answered(model: Model, records: Iterable[Record], max_length: int) -> Iterator[Example]:
    """The examples that leave an answer to learn."""
    for record in records:
        example = encode(model.tokenizer, record, max_length)
        if len(example) > max(example.prompt_length, 1):
            yield example


def _room_of(model: Model, example: Example, max_length: int) -> int:
    """How much of the rows an example takes, in tokens: without packing, a row."""
    return len(example) if model.packs else max_length
