import pytest

from llm.batches import Example
from llm.model import Model
from provenance.direct_logit import direct_logit, direct_stream
from provenance.method import Effort
from tests.provenance.small_subjects import FIRST, SECOND, normed


@pytest.mark.parametrize(("token", "base", "scores"), [(0, 1 / 3, [0, 2 / 3]), (1, 0, [1, 0])])
def test_a_logit_is_divided_among_its_writers(token: int, base: float, scores: list[float]) -> None:
    found = direct_logit(normed(), Example((0, token), 1), Effort())
    assert found.organisations == (FIRST, SECOND)
    assert found.tokens.tolist() == [pytest.approx(scores, abs=1e-6)]
    assert found.base.tolist() == pytest.approx([base], abs=1e-6)
    assert found.explained is not None
    assert found.explained.tolist() == pytest.approx([1.0], abs=1e-6)
    assert found.logprobs.exp().tolist() == pytest.approx([0.5], abs=1e-6)


def test_the_response_is_the_sum_of_its_tokens() -> None:
    found = direct_logit(normed(), Example((0, 0, 1), 1), Effort(chunk=1))
    assert found.tokens.tolist() == [pytest.approx([0, 2 / 3], abs=1e-6), pytest.approx([1, 0], abs=1e-6)]
    assert found.response.tolist() == pytest.approx([1, 2 / 3], abs=1e-6)


def test_a_stream_ends_before_an_end_token(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = normed()
    monkeypatch.setattr(Model, "end_tokens", frozenset({0}))
    assert list(direct_stream(subject, (1,), 5, Effort())) == []


def test_a_stream_yields_each_token_with_its_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Model, "end_tokens", frozenset({1}))
    steps = list(direct_stream(normed(), (1,), 3, Effort()))
    assert [token for token, _ in steps] == [0, 0, 0]
    assert [scores.tokens[0].tolist() for _, scores in steps] == [pytest.approx([0, 2 / 3], abs=1e-6)] * 3
