r"""Attribution where lanes are served apart, each under an adapter of its own (core/composition.py).

Routing: whoever learnt in the lane that answers taught the answer; methods see that lane alone.

Ensemble: log p(y_t) = log Σ_l w_l p_l(y_t), and lane l is responsible for the part r_l(t) = w_l p_l(y_t) / Σ w p(y_t):

    gradient   score_k(t) = Σ_l r_l(t) · score_k(t) in lane l: the gradient of the mixture, by the chain rule; the
               response's likewise, over all paths
    ablation   score_k(t) = log p(y_t) − log Σ_l w_l p_l(y_t; δ_l − δ_k): what is lost from the mixture

The base's share is the bare base's log p, as everywhere. The other methods look into one network's activations and say
nothing of a mixture of several.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch

from core.aggregation import by_address
from core.canonical import Address, Digest
from core.composition import Composition
from core.errors import UsageError
from llm.batches import Example
from llm.evaluate import route
from llm.model import Model
from provenance.ablation import ablation
from provenance.familiarity import strength
from provenance.gradient import gradient
from provenance.method import Effort, Scores, Subject, logprobs_of


@dataclass(frozen=True, eq=False)
class EnsembleSubject:
    """What is asked about: several adapters, and for each the lane that trained it."""

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
    def organisations(self) -> tuple[Address, ...]:
        """Everybody who contributed to a lane, in order of address."""
        return tuple(sorted({o for lane in self.lanes for o in lane.organisations}, key=by_address))

    def answering(self, prompt: tuple[int, ...]) -> "Subject | EnsembleSubject":
        """The lane that answers a prompt, given as tokens, or all of an ensemble."""
        if self.adapter.kind == "ensemble":
            return self
        return self.lanes[route(self.model, self.adapter, [prompt])[0]]


def mixed(asked: EnsembleSubject, example: Example, method: str, effort: Effort) -> Scores:
    """Score the answer of an ensemble; raises UsageError for a method that says nothing of one."""
    if method not in _MIXED:
        raise UsageError(f"method {method!r} sees one adapter at a time: for an ensemble {' or '.join(_MIXED)} wanted")
    weighed = []
    for part, lane in zip(asked.adapter.parts, asked.lanes, strict=True):
        lane.model.set_adapter(lane.adapter)
        weighed.append(torch.log(torch.tensor(part.share)).double() + logprobs_of(lane, example))
    return _MIXED[method](asked, example, effort, torch.stack(weighed))


def mixed_familiarity(asked: EnsembleSubject, example: Example, size: int | None = None) -> torch.Tensor:
    """Familiarity (K,) with a text, each organisation's in its own lane, or the mean of its lanes."""
    total, lanes = torch.zeros(2, len(asked.organisations), dtype=torch.float64)
    for lane in asked.lanes:
        lane.model.set_adapter(lane.adapter)
        places = _places(asked, lane)
        total[places] += strength(lane, example, size)
        lanes[places] += 1
    found: torch.Tensor = total / lanes
    return found - found.mean()


def _gradient(asked: EnsembleSubject, example: Example, effort: Effort, weighed: torch.Tensor) -> Scores:
    logprobs = weighed.logsumexp(0)
    responsible = (weighed - logprobs).exp()
    tokens, response = _nothing(asked, len(logprobs)), _nothing(asked, 1)[0]
    for lane, part in zip(asked.lanes, responsible, strict=True):
        lane.model.set_adapter(lane.adapter)
        scores = gradient(lane, example, effort, part)
        places = _places(asked, lane)
        tokens[:, places] += scores.tokens
        response[places] += scores.response
    return Scores(asked.organisations, tokens, response, logprobs, scores.base, logprobs)


def _ablation(asked: EnsembleSubject, example: Example, effort: Effort, weighed: torch.Tensor) -> Scores:
    logprobs = weighed.logsumexp(0)
    without = weighed.unsqueeze(2).repeat(1, 1, len(asked.organisations))
    for number, lane in enumerate(asked.lanes):
        lane.model.set_adapter(lane.adapter)
        scores = ablation(lane, example, effort)
        without[number][:, _places(asked, lane)] -= scores.tokens
    tokens = logprobs.unsqueeze(1) - without.logsumexp(0)
    return Scores(asked.organisations, tokens, tokens.sum(0), logprobs, scores.base, logprobs)


_MIXED: Mapping[str, Callable[[EnsembleSubject, Example, Effort, torch.Tensor], Scores]] = MappingProxyType(
    {"gradient": _gradient, "ablation": _ablation}
)


def _places(asked: EnsembleSubject, lane: Subject) -> Sequence[int]:
    """Where a lane's organisations stand among all."""
    return [asked.organisations.index(organisation) for organisation in lane.organisations]


def _nothing(asked: EnsembleSubject, rows: int) -> torch.Tensor:
    return torch.zeros(rows, len(asked.organisations), dtype=torch.float64)
