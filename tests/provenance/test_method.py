import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from core.errors import IntegrityError, UsageError
from llm.batches import Example
from provenance.contributions import Contributions
from provenance.method import Effort, Method, Scores, Subject, base_logprobs, logprobs_of, rows_of
from tests.provenance.conftest import organisation
from tests.provenance.small_subjects import FIRST, ONE, SECOND, TWO, log_linear


def scores(*organisations: str) -> Scores:
    nothing = torch.zeros(1)
    return Scores(tuple(organisations), nothing, nothing, nothing, nothing, None)  # type: ignore[arg-type]


def test_log_probabilities_with_and_without_the_adapter() -> None:
    subject = log_linear()
    assert logprobs_of(subject, TWO).tolist() == pytest.approx([math.log(3 / 5)] * 2, abs=1e-6)
    assert base_logprobs(subject, TWO).tolist() == pytest.approx([math.log(1 / 2)] * 2, abs=1e-6)
    assert rows_of(subject, TWO, 2).tokens.tolist() == [[1, 0, 0]] * 2


def test_a_method_scores_with_the_served_adapter_in_place() -> None:
    subject = log_linear()
    subject.model.set_adapter(subject.contributions.fresh)
    seen: list[float] = []

    def score(asked: Subject, example: Example, effort: Effort) -> Scores:
        seen.append(logprobs_of(asked, example).item())
        assert effort == Effort(chunk=1)
        return scores(FIRST)

    assert subject.scores(Method("mine", score), ONE, Effort(chunk=1)).organisations == (FIRST,)
    assert seen == pytest.approx([math.log(3 / 5)], abs=1e-6)


def test_familiarity_is_the_mean_log_ratio_less_its_mean() -> None:
    """A δ of rank one with A = (1, 1, 0, 0) answers to each embedding with ‖B‖, and has the size ‖B‖ √2."""
    subject = log_linear()
    assert subject.strength(TWO).tolist() == pytest.approx([-math.log(2) / 2] * 2, abs=1e-6)
    assert subject.familiarity(TWO, scores(FIRST, SECOND)).tolist() == pytest.approx([0, 0], abs=1e-6)
    inputs = {name: torch.tensor([[2.0, 0, 0, 0]]) for name in subject.contributions.modules}
    assert subject.strength(TWO, 1, inputs).tolist() == pytest.approx([math.log(2) / 2] * 2, abs=1e-6)


def test_an_organisation_without_a_contribution_has_no_familiarity() -> None:
    with pytest.raises(UsageError, match=organisation(7)):
        log_linear().familiarity(ONE, scores(organisation(7)))


@pytest.mark.parametrize(("rule", "refused"), [("frozen-a", True), ("svd", False)])
def test_contributions_must_add_up_unless_the_rule_loses_something(
    rule: str, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = log_linear()
    ((done,),) = subject.contributions.lanes
    half = replace(subject.contributions, lanes=((done._replace(updates=done.updates[:1]),),))
    monkeypatch.setattr("provenance.method.of_run", lambda *_: half)

    class Run:
        name = "spring"
        genesis = type("Genesis", (), {"rule": rule})
        calibration = None

    def make() -> Subject:
        return Subject.of(Run(), subject.model, subject.aggregate, subject.adapter)  # type: ignore[arg-type]

    if refused:
        with pytest.raises(IntegrityError, match=r"run spring: expected contributions that add up .*, got 5.*e-01"):
            make()
    else:
        assert isinstance(make().contributions, Contributions)
