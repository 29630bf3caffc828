r"""Calibration: the weights of a run's verdicts, fitted on records whose organisation is known.

Multinomial logistic regression (Hosmer & Lemeshow) of three weights, each the constant times e^u:

    min over u   − mean_i log softmax_k( w(u) · x_ik )_{k = teacher of i}  +  2 |u|² / n      w(u) = w_0 ⊙ e^u

x_ik are what a verdict weighs of organisation k in record i: the trace of the record's own answer after its prompt has
it, and nothing is generated. So signs stay, a constant of 0 stays 0, and few records move the constants little: the
ridge is a normal prior of standard deviation 1/2 on the logarithms of n records. The certainty below which a verdict
abstains is, of the constant and the certainties of these records above it, the one that leaves the most right verdicts
less the wrong ones; of equals the lowest. It stays the constant unless that silences four wrong verdicts more than
right ones: of two records, one of them wrong, the other's certainty would silence whatever is a little less sure.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from core.calibration import MOST_RECORDS, MOST_WEIGHT, Calibration, CalibrationRecord, in_order
from core.canonical import Address
from core.errors import UsageError
from core.genesis import Genesis
from llm.batches import encode
from llm.records import Record
from provenance.attribution import DEFAULT, scored, without_end
from provenance.confidence import WEIGHTS, Array, Weights, certainty_of, chances_of, features
from provenance.ensemble import EnsembleSubject
from provenance.method import Subject

_STEPS = 200
"""The most steps of the fit; it ends after some ten."""
_SILENCED = 4
"""The least gain, in wrong verdicts less right ones, for which more is left unsaid."""


@dataclass(frozen=True, eq=False)
class Labelled:
    """What a verdict weighs of a response, (3, K) float64 as `features` gives it, and the index of who taught it."""

    features: Array
    teacher: int

    def chances(self, weights: Weights) -> Array:
        """The probability (K,) that each organisation taught it."""
        return chances_of(weights, self.features)

    def right(self, weights: Weights) -> bool:
        """Whether its teacher is the likeliest."""
        return int(self.chances(weights).argmax()) == self.teacher


def calibrate(
    subject: Subject | EnsembleSubject,
    genesis: Genesis,
    published: Mapping[Address, Sequence[Record]],
    method: str = DEFAULT,
) -> Calibration | None:
    """Fit the weights of verdicts on the records that organisations published; equal calls give equal weights.

    None where no record has its organisation among several that are scored: there is nothing to tell apart. Raises
    UsageError for more records than a calibration names.
    """
    if (count := sum(map(len, published.values()))) > MOST_RECORDS:
        raise UsageError(f"calibration records: expected at most {MOST_RECORDS}, got {count}: give fewer")
    found = dict(labelled_records(subject, published, genesis.training.max_length, method))
    if not found:
        return None
    weights = fit(WEIGHTS[method], list(found.values()))
    return Calibration(genesis.digest, subject.aggregate, method, *weights, in_order(found))


def labelled_records(
    subject: Subject | EnsembleSubject,
    published: Mapping[Address, Sequence[Record]],
    length: int,
    method: str = DEFAULT,
) -> Iterator[tuple[CalibrationRecord, Labelled]]:
    """What a verdict weighs of records, cut to `length` tokens; of equal ones the first.

    Left out are those without a prompt or an answer, and those whose organisation is not among several scored.
    """
    context = subject.model.context_length or length
    for organisation, records in published.items():
        for record in dict.fromkeys(records):
            example = encode(subject.model.tokenizer, record, min(length, context))
            example, start = without_end(subject.model, example), example.prompt_length
            if not 0 < start < len(example):
                continue
            answering = subject.answering(example.tokens[:start])
            # Whoever learns elsewhere than in the lane that answers has no score, and could not be named.
            if organisation not in answering.organisations or len(answering.organisations) < 2:
                continue
            scores, familiar = scored(answering, example, method)
            if organisation in scores.organisations:
                weighed = features(scores.tokens, scores.response, familiar)
                labelled = Labelled(weighed, scores.organisations.index(organisation))
                yield CalibrationRecord(organisation, record.digest), labelled


def fit(constants: Weights, labelled: Sequence[Labelled]) -> Weights:
    """The weights that make the teachers likeliest, near the constants; deterministic, in float64."""
    start = torch.tensor(constants[:3], dtype=torch.float64)
    u = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([u], max_iter=_STEPS, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        weights = start * u.exp()
        nats = [-(weights @ torch.from_numpy(one.features)).log_softmax(0)[one.teacher] for one in labelled]
        value = (torch.stack(nats).sum() + 2 * u.pow(2).sum()) / len(labelled)
        value.backward()  # type: ignore[no-untyped-call] # torch's own
        return value

    with torch.enable_grad():
        optimiser.step(loss)  # type: ignore[no-untyped-call] # torch's own
    fitted = constants._replace(
        **dict(zip(constants._fields, (start * u.detach().exp()).clamp(max=MOST_WEIGHT).tolist(), strict=False))
    )
    return fitted._replace(certainty=threshold(fitted, labelled))


def threshold(weights: Weights, labelled: Sequence[Labelled]) -> float:
    """The certainty from which on right verdicts outnumber wrong ones the most, at least that of `weights`."""
    judged = [(certainty_of(one.chances(weights)), one.right(weights)) for one in labelled]
    least = sorted({weights.certainty, *(sure for sure, _ in judged if sure > weights.certainty)})

    def gained(bound: float) -> int:
        return sum(1 if right else -1 for sure, right in judged if sure >= bound)

    # `max` takes the first of equals: the lowest.
    best = max(least, key=gained)
    return best if gained(best) - gained(weights.certainty) >= _SILENCED else weights.certainty
