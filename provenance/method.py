"""Input and output of every attribution method: a subject, an example and an effort become scores."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch

from core.adapter import AdapterState
from core.calibration import Calibration, verified_calibration
from core.canonical import Address, Digest
from core.errors import IntegrityError
from core.storage.run_folder import RunFolder
from llm.batches import Batch, Example, collate
from llm.familiarity import inputs_of, keys
from llm.loss import answer_losses
from llm.model import Model
from provenance.contributions import Contributions, of_run
from provenance.familiarity import strength

_ROUNDING = 1e-3
"""The largest relative gap between the contributions and the served adapter of a rule that loses nothing."""


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

    `base` (T,) is the base model's share, `explained` (T,) the sum that base and scores of a token should have: None
    where the method has no such sum. `inputs` (positions, in) are those of the modules that familiarity asks for, where
    the method has read prompt and response with the served adapter.
    """

    organisations: tuple[Address, ...]
    tokens: torch.Tensor
    response: torch.Tensor
    logprobs: torch.Tensor
    base: torch.Tensor
    explained: torch.Tensor | None
    inputs: Mapping[str, torch.Tensor] | None = None


@dataclass(frozen=True, eq=False)
class Subject:
    """A served adapter of a run, on its base model, with the contributions to it.

    `calibration` is that of what is served, where there is one: the weights of verdicts by its method.
    """

    run: str
    aggregate: Digest
    model: Model
    adapter: AdapterState
    contributions: Contributions
    calibration: Calibration | None = None

    @property
    def organisations(self) -> tuple[Address, ...]:
        """The contributors, in order of address."""
        return self.contributions.organisations

    def answering(self, prompt: tuple[int, ...]) -> Self:  # noqa: ARG002 - an EnsembleSubject chooses
        """The subject that answers a prompt, given as tokens: itself."""
        return self

    @classmethod
    def of(
        cls, run: RunFolder, model: Model, aggregate: Digest, adapter: AdapterState, lane: int | None = None
    ) -> Self:
        """The subject of a run that serves `aggregate`: `adapter`, which one lane trained, or all when it is None.

        Raises UsageError when it has no contributions, IntegrityError when they do not add up to the adapter,
        ForgeryError or IntegrityError for a calibration that its coordinator did not sign for its members.
        """
        contributions = of_run(run, model.modules, model.device, lane)
        gap = contributions.gap(adapter)
        if gap > _ROUNDING and run.genesis.rule != "svd":
            raise IntegrityError(
                f"run {run.name}: expected contributions that add up to the served adapter, got {gap:.1e} of it missing"
            )
        signed = run.calibration
        fitted = verified_calibration(signed, run.genesis) if signed else None
        # That of another state has weights for another's scores.
        fits = fitted is not None and fitted.aggregate == aggregate
        return cls(run.name, aggregate, model, adapter, contributions, fitted if fits else None)

    def scores(self, method: "Method", example: Example, effort: Effort) -> Scores:
        """The scores of an answer by a method; the model then holds the served adapter."""
        self.model.set_adapter(self.adapter)
        return method.score(self, example, effort)

    def familiarity(self, example: Example, scores: Scores, size: int | None = None) -> torch.Tensor:
        """Familiarity (K,) with prompt and response, float64 on the CPU; 0 is the mean of the scored organisations.

        `size` organisations are looked at at a time.
        """
        known = self.strength(example, size, scores.inputs)
        scored = known[[self.contributions.position(organisation) for organisation in scores.organisations]]
        return scored - scored.mean()

    def strength(
        self, example: Example, size: int | None = None, inputs: Mapping[str, torch.Tensor] | None = None
    ) -> torch.Tensor:
        """Familiarity (K,) of all contributors before it is compared; reads the text unless its `inputs` are given."""
        if inputs is None:
            self.model.set_adapter(self.adapter)
            inputs = inputs_of(self.model, example.tokens, keys(self.contributions.modules))
        return strength(self.contributions, inputs, size)


Scoring = Callable[[Subject, Example, Effort], Scores]
"""Scores the answer of an example; the model holds the served adapter."""
MixtureScoring = Callable[[Sequence[Subject], Example, Effort, torch.Tensor], Scores]
"""(lanes, example, effort, log w_l (L,)) -> scores of the mixture that the lanes are served as."""


@dataclass(frozen=True)
class Method:
    """An attribution method; `score_mixture` is None where it has no meaning for a mixture of several adapters."""

    name: str
    score: Scoring
    score_mixture: MixtureScoring | None = None


def logprobs_of(subject: Subject, example: Example) -> torch.Tensor:
    """Log p (T,) of the answer in nats as the model now stands, float64 on the CPU."""
    with torch.no_grad():
        return -answer_losses(subject.model, rows_of(subject, example)).double().cpu()


def base_logprobs(subject: Subject, example: Example) -> torch.Tensor:
    """The same without the adapter: the base model's share."""
    with subject.model.without_adapter():
        return logprobs_of(subject, example)


def rows_of(subject: Subject, example: Example, count: int = 1) -> Batch:
    """The example `count` times, on the model's device, with what enters the first adapted block where that is kept."""
    return subject.model.entered(collate([example], [[0]] * count).to(subject.model.device))
