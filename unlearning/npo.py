"""The bridge until a rebuild is done: an adapter is trained away from the records to forget. Approximate, never exact.

    npo     Negative Preference Optimization (Zhang et al., 2024, arXiv 2404.05868)
            (2/β) E[log(1 + (π(y|x) / π₀(y|x))^β)],  π₀ the adapter before
    simnpo  without a reference, by the length of the answer (Fan et al., 2024, arXiv 2410.07163)
            −(2/β) E[log σ(−(β/|y|) log π(y|x) − γ)]

Both add the ordinary loss on records to retain, times a weight. Both losses are bounded below, unlike that of plain
gradient ascent, but nothing proves that the records are forgotten: hence the label.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import ClassVar

import torch
from torch.nn.functional import logsigmoid

from core.adapter import AdapterState
from core.errors import UsageError
from llm.batches import IGNORED, Batch, encode
from llm.evaluate import record_losses
from llm.loss import answer_losses
from llm.model import Model
from llm.records import Record
from llm.train import TrainConfig, draw_steps, train
from unlearning.lineage import Label

METHODS = ("npo", "simnpo")


@dataclass(frozen=True)
class BridgeConfig:
    """Which loss, with which constants; the papers choose the rate and the weights anew for each model and data set."""

    training: TrainConfig
    method: str = "npo"
    beta: float = 0.1
    """β: 0.1 in NPO's paper; SimNPO's, which divides by the answer's length, is around 2.5."""
    gamma: float = 0.0
    """γ, the margin of simnpo."""
    retain: float = 1.0
    """Weight of the ordinary loss on the records to retain."""

    label: ClassVar[Label] = Label.APPROXIMATE

    def __post_init__(self) -> None:
        """Raise UsageError for a value out of its range."""
        if self.method not in METHODS:
            raise UsageError(f"bridge: expected one of {', '.join(METHODS)}, got {self.method!r}")
        if not (self.beta > 0 and self.retain >= 0):
            raise UsageError(f"expected beta above 0 and retain of at least 0, got {self.beta} and {self.retain}")


def bridge(
    model: Model,
    state: AdapterState,
    forget: Sequence[Record],
    retain: Sequence[Record],
    config: BridgeConfig,
    seed: int,
) -> AdapterState:
    """The adapter `state` after `config.training` on the records to forget; equal calls give equal bits.

    Raises ModelError when `state` does not fit the model, DataError when records leave no answer.
    """
    training = config.training
    length = training.max_length
    before: dict[tuple[int, ...], float] = {}
    if config.method == "npo":
        losses = record_losses(model, state, forget, length)
        examples = (encode(model.tokenizer, record, length) for record in forget)
        before = {example.tokens: loss.nats for example, loss in zip(examples, losses, strict=True)}
    kept = chain.from_iterable(draw_steps(model, retain, training, seed)) if config.retain else repeat(None)
    return train(model, forget, state, training, seed, _Objective(config, before, kept)).adapter


@dataclass(frozen=True)
class _Objective:
    config: BridgeConfig
    before: Mapping[tuple[int, ...], float]
    """−log π₀ of each record to forget, by its tokens."""
    kept: Iterator[Batch | None]

    def __call__(self, model: Model, batch: Batch) -> torch.Tensor:
        """The mean over records to forget, plus the mean over answer tokens to retain; times the batch's answers."""
        owners = batch.owners[batch.targets != IGNORED]
        records = sorted(set(owners.tolist()))
        # Owners number the examples of the whole call, the batch holds some of them: their indices among those.
        indices = torch.searchsorted(owners.new_tensor(records), owners)
        losses = answer_losses(model, batch)
        nats = losses.new_zeros(len(records)).index_add(0, indices, losses)
        if self.config.method == "npo":
            tokens = (tuple(batch.tokens[batch.owners == record].tolist()) for record in records)
            loss = npo(nats, nats.new_tensor([self.before[t] for t in tokens]), self.config.beta)
        else:
            loss = simnpo(nats, indices.bincount(), self.config.beta, self.config.gamma)
        if kept := next(self.kept):
            loss = loss + self.config.retain * answer_losses(model, kept.to(model.device)).mean()
        # Times the answers, by which `train` divides again.
        return loss * len(batch)


def npo(nats: torch.Tensor, before: torch.Tensor, beta: float) -> torch.Tensor:
    """NPO's loss of records with −log π and −log π₀ in nats, both of shape (records,)."""
    return -2 / beta * logsigmoid(beta * (nats - before)).mean()


def simnpo(nats: torch.Tensor, tokens: torch.Tensor, beta: float, gamma: float) -> torch.Tensor:
    """SimNPO's loss of records with −log π in nats and the answers' lengths in tokens, both of shape (records,)."""
    return -2 / beta * logsigmoid(beta * nats / tokens - gamma).mean()
