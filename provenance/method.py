"""What every attribution method is given and what it gives back."""

from dataclasses import dataclass
from typing import Protocol, Self

import torch

from core.adapter import AdapterState
from core.canonical import Address, Digest
from core.errors import IntegrityError
from core.storage.run_folder import RunFolder
from llm.batches import Batch, Example, collate
from llm.loss import answer_losses
from llm.model import Model
from provenance.contributions import Contributions, of_run

_ROUNDING = 1e-3
"""The largest relative gap between the contributions and the served adapter of a rule that loses nothing."""


@dataclass(frozen=True, eq=False)
class Subject:
    """What is asked about: a run, what it serves, on which model, and who contributed what to it."""

    run: str
    aggregate: Digest
    model: Model
    adapter: AdapterState
    contributions: Contributions

    @property
    def organisations(self) -> tuple[Address, ...]:
        """Everybody who contributed, in order of address."""
        return self.contributions.organisations

    @classmethod
    def of(
        cls, run: RunFolder, model: Model, aggregate: Digest, adapter: AdapterState, lane: int | None = None
    ) -> Self:
        """What a run serves, by its digest: `adapter`, which one lane trained, or all when it is None.

        Raises UsageError when it has no contributions, IntegrityError when they do not add up to what is served.
        """
        contributions = of_run(run, model.modules, model.device, lane)
        gap = contributions.gap(adapter)
        if gap > _ROUNDING and run.genesis.rule != "svd":
            raise IntegrityError(f"run {run.name}: contributions miss what is served by {gap:.1e} of it, 0 wanted")
        return cls(run.name, aggregate, model, adapter, contributions)


@dataclass(frozen=True)
class Effort:
    """How a method may go about it. None of it changes what a method means."""

    chunk: int | None = None
    """Organisations at a time; None: as many as fit in some memory."""
    points: int = 8
    """`shapley`: points of the path from the base to the served adapter."""
    exact: bool = False
    """`gradient`: tokens with all paths, at one backward pass a token."""


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores (T, K) of tokens and (K,) of the response, float64 on the CPU, K as in `organisations`.

    `base` (T,) is the base model's share, `explained` (T,) what base and scores of a token should add up to: None where
    the method has no such sum.
    """

    organisations: tuple[Address, ...]
    tokens: torch.Tensor
    response: torch.Tensor
    logprobs: torch.Tensor
    base: torch.Tensor
    explained: torch.Tensor | None


class Method(Protocol):
    """One file a method."""

    def __call__(self, subject: Subject, example: Example, effort: Effort) -> Scores:
        """Score the answer of `example`; the model holds the served adapter."""
        ...


def logprobs_of(subject: Subject, example: Example) -> torch.Tensor:
    """Log p (T,) of the answer in nats as the model now stands, float64 on the CPU."""
    with torch.no_grad():
        return -answer_losses(subject.model, rows_of(subject, example)).double().cpu()


def base_logprobs(subject: Subject, example: Example) -> torch.Tensor:
    """The same without the adapter: the base model's share."""
    with subject.model.without_adapter():
        return logprobs_of(subject, example)


def rows_of(subject: Subject, example: Example, count: int = 1) -> Batch:
    """The example `count` times, on the model's device."""
    return collate([example], [[0]] * count).to(subject.model.device)
