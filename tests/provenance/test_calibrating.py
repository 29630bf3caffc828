"""Fitting the weights of verdicts: on made-up features, and on tiny bases."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from core.calibration import MOST_RECORDS
from core.composition import Composition, Part
from core.errors import UsageError
from llm.model import Model
from llm.records import Message, Record
from provenance.attribution import DEFAULT, attribute
from provenance.calibrating import Labelled, calibrate, fit
from provenance.confidence import LEAST_CERTAINTY, WEIGHTS, Weights, certainty_of, features, weights_of
from provenance.ensemble import EnsembleSubject
from tests import federation as f
from tests.provenance.conftest import Federate, federation, organisation

GENESIS = f.genesis()
CONSTANTS = WEIGHTS[DEFAULT]


def responses(useful: int, count: int, seed: int = 0, size: float = 2.0) -> list[Labelled]:
    """Responses of four organisations of whose three features only one says who taught them."""
    random = torch.Generator().manual_seed(seed)
    found = []
    for index in range(count):
        values = torch.randn(3, 4, generator=random, dtype=torch.float64)
        values[2] /= 50
        values[useful, index % 4] += size / (50 if useful == 2 else 1)
        found.append(Labelled(values.numpy(), index % 4))
    return found


def nats(weights: Weights, held_out: list[Labelled]) -> float:
    return -sum(math.log(one.chances(weights)[one.teacher].item()) for one in held_out) / len(held_out)


@pytest.mark.parametrize("useful", range(3))
def test_the_feature_that_tells_gains_weight_and_others_lose_it(useful: int) -> None:
    fitted = fit(CONSTANTS, responses(useful, 200))
    grown = [after / before for after, before in zip(fitted[:3], CONSTANTS[:3], strict=True)]
    assert grown[useful] > 1
    assert all(ratio < 1 for index, ratio in enumerate(grown) if index != useful)
    held_out = responses(useful, 200, seed=1)
    assert nats(fitted, held_out) < nats(CONSTANTS, held_out)


def test_a_fit_is_the_same_each_time_and_a_minimum() -> None:
    labelled = responses(0, 40)
    fitted = fit(CONSTANTS, labelled)
    assert fit(CONSTANTS, labelled) == fitted

    def worth(weights: Weights) -> float:
        ridge = sum(math.log(w / c) ** 2 for w, c in zip(weights[:3], CONSTANTS[:3], strict=True)) * 2
        return nats(weights, labelled) + ridge / len(labelled)

    for name in ("noise", "score", "familiarity"):
        for factor in (0.99, 1.01):
            assert worth(fitted._replace(**{name: factor * getattr(fitted, name)})) > worth(fitted)


def test_few_records_move_the_constants_little() -> None:
    def moved(count: int) -> float:
        fitted = fit(CONSTANTS, responses(0, count))
        return max(abs(math.log(w / c)) for w, c in zip(fitted[:3], CONSTANTS[:3], strict=True))

    assert moved(1) < 0.5 < moved(400)


@pytest.mark.parametrize("wrong", [1, 3])
def test_few_wrong_verdicts_silence_nobody(wrong: int) -> None:
    """Of two records, one wrong, the right one's certainty would silence what is a little less sure."""
    clear, unsure = responses(0, wrong, size=12.0), responses(0, wrong, seed=2, size=1.0)
    labelled = clear + [replace(one, teacher=int(one.chances(CONSTANTS).argmin())) for one in unsure]
    assert fit(CONSTANTS, labelled).certainty == LEAST_CERTAINTY


def test_a_constant_of_zero_stays_zero_and_signs_stay() -> None:
    wrong = [replace(one, teacher=(one.teacher + 1) % 4) for one in responses(0, 50)]
    fitted = fit(WEIGHTS["protoken"], wrong)
    assert fitted.score == 0
    assert 0 < fitted.noise < WEIGHTS["protoken"].noise
    assert fitted.familiarity > 0


def test_who_is_always_right_keeps_the_least_certainty() -> None:
    assert fit(CONSTANTS, responses(0, 40, size=50.0)).certainty == LEAST_CERTAINTY


def test_a_verdict_abstains_below_the_certainty_that_leaves_most_right_less_wrong() -> None:
    # Sure and right, unsure and wrong: abstaining from the unsure leaves only right ones.
    clear, unsure = responses(0, 40, size=12.0), responses(0, 40, seed=2, size=1.0)
    wrong = [replace(one, teacher=int(one.chances(CONSTANTS).argmin())) for one in unsure]
    fitted = fit(CONSTANTS, clear + wrong)
    judged = [(certainty_of(one.chances(fitted)), one.right(fitted)) for one in clear + wrong]

    def gain(bound: float) -> int:
        return sum(1 if right else -1 for sure, right in judged if sure >= bound)

    assert fitted.certainty > LEAST_CERTAINTY
    assert fitted.certainty in [sure for sure, _ in judged]
    assert gain(fitted.certainty) == max(gain(sure) for sure, _ in judged) > gain(LEAST_CERTAINTY)


# --- on a served model ---------------------------------------------------------------------------------------------


def records(*answers: str) -> tuple[Record, ...]:
    return tuple(Record((Message("user", "How many are two and three?"),), answer) for answer in answers)


PUBLISHED = {organisation(0): records("They are five.", "Five."), organisation(2): records("Six, they say.")}


def test_a_calibration_weighs_what_the_trace_of_a_record_has(
    federate: Federate, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, seen = federate(), list[Labelled]()
    monkeypatch.setattr("provenance.calibrating.fit", lambda constants, labelled: seen.extend(labelled) or constants)
    found = calibrate(subject, GENESIS, PUBLISHED)
    assert found is not None
    assert weights_of(found) == CONSTANTS
    assert (found.genesis, found.aggregate, found.method) == (GENESIS.digest, subject.aggregate, DEFAULT)
    answers = {record.digest: organisation for organisation, own in PUBLISHED.items() for record in own}
    assert {named.record: named.organisation for named in found.records} == answers
    trace = attribute(subject, "How many are two and three?", "They are five.")
    rows = [torch.tensor(row, dtype=torch.float64) for row in (trace.response.scores, trace.response.familiarity)]
    tokens = torch.tensor([token.scores for token in trace.tokens], dtype=torch.float64)
    assert np.array_equal(seen[0].features, features(tokens, *rows))
    assert trace.organisations[seen[0].teacher] == organisation(0)


def test_a_calibration_is_the_same_each_time(federate: Federate) -> None:
    subject = federate()
    assert calibrate(subject, GENESIS, PUBLISHED) == calibrate(subject, GENESIS, PUBLISHED)


def test_records_that_tell_nothing_are_left_out(federate: Federate) -> None:
    subject = federate(rounds=((0, 1),))
    found = calibrate(subject, GENESIS, PUBLISHED | {organisation(1): (Record((), "plain text"), *records("Two.") * 2)})
    assert found is not None
    assert organisation(2) not in {named.organisation for named in found.records}  # it taught nothing
    assert len(found.records) == 4  # of equal ones the first alone
    assert calibrate(federate(rounds=((0,),)), GENESIS, PUBLISHED) is None  # there is nobody to confuse it with


@pytest.mark.parametrize(("kind", "count"), [("ensemble", 3), ("routing", 1)])
def test_independently_trained_lanes_are_calibrated_as_they_answer(
    load_tiny: Callable[..., Model], monkeypatch: pytest.MonkeyPatch, kind: str, count: int
) -> None:
    model = load_tiny("llama", "none", 4)
    lanes = tuple(federation(model, rounds=(who, who)) for who in ((0,), (1, 2)))
    composition = Composition(kind, tuple(Part(0.5, lane.adapter) for lane in lanes))
    # Routed to the second lane, in which the first organisation has no part.
    monkeypatch.setattr("provenance.ensemble.route", lambda *_: (1,))
    found = calibrate(EnsembleSubject(composition, lanes), GENESIS, PUBLISHED)
    assert found is not None
    assert len(found.records) == count


def test_a_verdict_uses_the_calibration_of_its_method_alone(federate: Federate) -> None:
    subject = federate()
    found = calibrate(subject, GENESIS, PUBLISHED)
    assert found is not None
    calibrated = replace(subject, calibration=replace(found, noise=0.0, score=0.0, familiarity=0.0, certainty=1.0))
    plain, fitted = (attribute(of, "How many?", "Five.").response for of in (subject, calibrated))
    assert not plain.calibrated
    assert fitted.calibrated
    assert (fitted.confidence, fitted.verdict) == (pytest.approx(1 / 3), None)
    assert not attribute(calibrated, "How many?", "Five.", "protoken").response.calibrated


def test_more_records_than_a_calibration_names_are_refused(federate: Federate) -> None:
    with pytest.raises(UsageError, match=f"expected at most {MOST_RECORDS}, got {MOST_RECORDS + 1}"):
        calibrate(federate(), GENESIS, {organisation(0): records("Five.") * (MOST_RECORDS + 1)})
