r"""Attribution where independently trained lanes are served, each with an adapter of its own (core/composition.py).

Routing: the organisations of the lane that answers taught the answer; methods see that lane alone.

Ensemble: log p(y_t) = log Σ_l w_l p_l(y_t), and lane l is responsible for the part r_l(t) = w_l p_l(y_t) / Σ w p(y_t):

    gradient   score_k(t) = Σ_l r_l(t) · score_k(t) in lane l: the gradient of the mixture, by the chain rule; the
               response's likewise, over all paths
    ablation   score_k(t) = log p(y_t) − log Σ_l w_l p_l(y_t; δ_l − δ_k): the loss of the mixture without k
    marginal   the mean of that and of log Σ_l w_l p_l(y_t; δ_k) − log p(y_t; 0): k alone, every other lane bare

The base's share is the bare base's log p, as everywhere. The other methods look into one network's activations and have
no meaning for a mixture of several.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch

from core.aggregation import by_address
from core.calibration import Calibration
from core.canonical import Address, Digest
from core.composition import Composition
from core.errors import UsageError
from llm.batches import Example
from llm.evaluate import route
from llm.model import Model
from provenance.ablation import ablation, each_alone, with_first
from provenance.gradient import gradient
from provenance.method import Effort, Method, Scores, Subject, logprobs_of


@dataclass(frozen=True, eq=False)
class EnsembleSubject:
    """Several served adapters, and for each the lane that trained it."""

    adapter: Composition
    lanes: tuple[Subject, ...]

    @property
    def run(self) -> str:
        """The run id."""
        return self.lanes[0].run

    @property
    def aggregate(self) -> Digest:
        """The digest of what is served."""
        return self.lanes[0].aggregate

    @property
    def model(self) -> Model:
        """The base model."""
        return self.lanes[0].model

    @property
    def calibration(self) -> Calibration | None:
        """The calibration of what is served, where there is one."""
        return self.lanes[0].calibration

    @property
    def organisations(self) -> tuple[Address, ...]:
        """The contributors to any of the lanes, in order of address."""
        return contributors(self.lanes)

    def answering(self, prompt: tuple[int, ...]) -> Subject | Self:
        """The lane that a prompt, given as tokens, is routed to; an ensemble answers as a whole."""
        if self.adapter.kind == "ensemble":
            return self
        return self.lanes[route(self.model, self.adapter, [prompt])[0]]

    def scores(self, method: Method, example: Example, effort: Effort) -> Scores:
        """The scores of an ensemble's answer; raises UsageError for a method that has none for a mixture."""
        if method.score_mixture is None:
            raise UsageError(f"method {method.name!r} sees one adapter at a time, got an ensemble of {len(self.lanes)}")
        shares = torch.stack([torch.log(torch.tensor(part.share)).double() for part in self.adapter.parts])
        return method.score_mixture(self.lanes, example, effort, shares)

    def familiarity(self, example: Example, scores: Scores, size: int | None = None) -> torch.Tensor:
        """Familiarity (K,) with a text, each organisation's in its own lane, or the mean over its lanes."""
        total, lanes = torch.zeros(2, len(scores.organisations), dtype=torch.float64)
        for lane in self.lanes:
            indices = _indices(scores.organisations, lane)
            total[indices] += lane.strength(example, size)
            lanes[indices] += 1
        means: torch.Tensor = total / lanes
        return means - means.mean()


def mixture_gradient(lanes: Sequence[Subject], example: Example, effort: Effort, shares: torch.Tensor) -> Scores:
    """Gradient scores of a mixture; `shares` (L,) are log w_l."""
    organisations, said = contributors(lanes), []
    for lane, share in zip(lanes, shares, strict=True):
        lane.model.set_adapter(lane.adapter)
        said.append(share + logprobs_of(lane, example))
    weighed = torch.stack(said)
    logprobs = weighed.logsumexp(0)
    tokens = torch.zeros(len(logprobs), len(organisations), dtype=torch.float64)
    response = torch.zeros(len(organisations), dtype=torch.float64)
    for lane, responsible in zip(lanes, (weighed - logprobs).exp(), strict=True):
        lane.model.set_adapter(lane.adapter)
        scores = gradient(lane, example, effort, responsible)
        indices = _indices(organisations, lane)
        tokens[:, indices] += scores.tokens
        response[indices] += scores.response
    return Scores(organisations, tokens, response, logprobs, scores.base, logprobs)


def mixture_ablation(lanes: Sequence[Subject], example: Example, effort: Effort, shares: torch.Tensor) -> Scores:
    """Leave-one-out scores of a mixture; `shares` (L,) are log w_l."""
    organisations, weighed, without = contributors(lanes), [], []
    for lane, share in zip(lanes, shares, strict=True):
        lane.model.set_adapter(lane.adapter)
        scores = ablation(lane, example, effort)
        weighed.append(share + scores.logprobs)
        others = weighed[-1].unsqueeze(1).repeat(1, len(organisations))
        others[:, _indices(organisations, lane)] -= scores.tokens
        without.append(others)
    logprobs = torch.stack(weighed).logsumexp(0)
    tokens = logprobs.unsqueeze(1) - torch.stack(without).logsumexp(0)
    return Scores(organisations, tokens, tokens.sum(0), logprobs, scores.base, logprobs)


def mixture_marginal(lanes: Sequence[Subject], example: Example, effort: Effort, shares: torch.Tensor) -> Scores:
    """The same, and what each organisation adds to the bare base in its own lanes: the mean of both."""
    left_out = mixture_ablation(lanes, example, effort, shares)
    alone = []
    for lane, share in zip(lanes, shares, strict=True):
        lane.model.set_adapter(lane.adapter)
        said = left_out.base.unsqueeze(1).repeat(1, len(left_out.organisations))
        said[:, _indices(left_out.organisations, lane)] = each_alone(lane, example, effort)
        alone.append(share + said)
    return with_first(left_out, torch.stack(alone).logsumexp(0))


def contributors(lanes: Sequence[Subject]) -> tuple[Address, ...]:
    """The contributors to any of the lanes, in order of address."""
    return tuple(sorted({organisation for lane in lanes for organisation in lane.organisations}, key=by_address))


def _indices(organisations: Sequence[Address], lane: Subject) -> list[int]:
    """The indices of a lane's contributors among all."""
    return [organisations.index(organisation) for organisation in lane.organisations]
