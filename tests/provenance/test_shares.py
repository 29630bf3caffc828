import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.shares import response_shares, token_shares
from provenance.trace import TokenScores
from tests.provenance.traces import trace

NATS = st.floats(-50, 50)


def token(scores: tuple[float, ...], base: float, residual: float | None, logprob: float = -1.0) -> TokenScores:
    return TokenScores("a", 0, logprob, scores, base, residual)


def test_the_base_keeps_what_it_would_have_given_alone() -> None:
    shares = token_shares(token((math.log(4), 0.0), -2.0, 0.0))
    assert shares.base == pytest.approx(0.25)
    assert shares.organisations == pytest.approx((0.75, 0.0))
    assert shares.strongest == 0


def test_organisations_share_by_what_they_raised_and_the_residual_is_not_the_bases() -> None:
    shares = token_shares(token((1.0, 3.0, -2.0), -5.0, math.log(10) - 2.0))
    assert shares.base == pytest.approx(0.1)
    assert shares.organisations == pytest.approx((0.225, 0.675, 0.0))


def test_a_token_that_the_adapter_lowered_is_the_bases() -> None:
    assert token_shares(token((-1.0, 0.5), -1.0, 0.0)).base == 1.0


def test_what_nobody_explains_is_nobodys() -> None:
    shares = token_shares(token((-1.0, 0.0), -5.0, 3.0))
    assert shares.base + sum(shares.organisations) == pytest.approx(math.exp(-2))


def test_a_method_without_a_residual_is_divided_by_softmax() -> None:
    shares = token_shares(token((1000.0, 1000.0 + math.log(3)), -1.0 - math.log(2), None))
    assert shares.base == pytest.approx(0.5)
    assert shares.organisations == pytest.approx((0.125, 0.375))


@given(st.lists(NATS, min_size=1, max_size=5), NATS, st.one_of(st.none(), NATS), NATS)
def test_shares_are_parts_of_one(scores: list[float], base: float, residual: float | None, logprob: float) -> None:
    shares = token_shares(token(tuple(scores), base, residual, logprob))
    parts = (*shares.organisations, shares.base)
    assert all(0 <= part <= 1 + 1e-12 for part in parts)
    assert sum(parts) <= 1 + 1e-9


def test_the_strongest_of_a_response_is_the_one_with_the_highest_score() -> None:
    found = trace()
    shares = response_shares(found)
    assert found.organisations[shares.strongest] == found.response.verdict
    assert shares.base == pytest.approx(sum(token_shares(t).base for t in found.tokens) / len(found.tokens))
    assert sum(shares.organisations) + shares.base == pytest.approx(1)
