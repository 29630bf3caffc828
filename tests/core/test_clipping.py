"""Clipping: each member has one vote on how large an update may be, whatever a round asks."""

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest

from core.canonical import Address
from core.clipping import Vote, clip_factors, clipping
from core.genesis import Genesis
from core.robust import Robust
from core.rounds import Admitted, RoundRecord
from core.update import Bid
from tests import federation as f

SHORT = f.genesis(robust=Robust("clip", 1.5))
"""Of two rounds."""
CLIPPED = replace(SHORT, training=replace(SHORT.training, rounds=20))
FOUR = tuple(f.EXAMPLES)


def admitted(norms: Mapping[str, float], number: int, bids: Mapping[str, Bid] = {}) -> tuple[Admitted, ...]:
    """The admitted of a round, by their norms."""
    return tuple(
        Admitted(f.signed(CLIPPED, name, round=number, bid=bids.get(name, Bid(25, 2))), 0.5, norm=norm)
        for name, norm in norms.items()
    )


def line(*rounds: Mapping[str, float], first: int = 1) -> list[RoundRecord]:
    """The records of rounds, by the norms of what they admitted."""
    return [f.record(CLIPPED, round=n, admitted=admitted(norms, n)) for n, norms in enumerate(rounds, first)]


def found(norms: Mapping[str, float], *earlier: Mapping[str, float], genesis: Genesis = CLIPPED) -> dict[str, float]:
    """The factors of a round behind earlier ones, by name."""
    number = len(earlier) + 1
    made = clipping(genesis, line(*earlier), number, admitted(norms, number))
    return {name: made[f.address(name)] for name in norms}


def test_of_two_updates_the_smaller_is_the_measure() -> None:
    assert found({"medical": 1.0, "coding": 10.0}) == {"medical": 1.0, "coding": 0.15}


def test_a_large_update_is_clipped_by_those_who_were_asked_before() -> None:
    before = {"financial": 1.0, "mathematical": 1.2}
    assert found({"medical": 1.1, "coding": 11.0}, before)["coding"] == pytest.approx(0.15)


def test_an_update_near_zero_holds_its_neighbour_back_for_one_round_and_then_has_one_vote_of_all() -> None:
    tiny = {"medical": 1e-9, "coding": 1.0}
    assert found(tiny)["coding"] < 1e-8
    others = {"financial": 1.0, "mathematical": 1.2}
    assert found(others, tiny)["financial"] == 1.0
    assert found(tiny, tiny, others)["coding"] == 1.0


def test_a_member_has_one_vote_its_newest() -> None:
    often = [{"medical": 100.0}] * 5
    assert found({"medical": 100.0, "coding": 1.0}, *often, {"financial": 1.1})["medical"] == pytest.approx(0.0165)


def test_more_steps_and_a_higher_rank_may_move_further() -> None:
    bids = {"medical": Bid(16, 2), "coding": Bid(4, 2), "financial": Bid(16, 1)}
    norms = {"medical": 4.0, "coding": 2.0, "financial": 4.0 / math.sqrt(2)}
    made = clipping(CLIPPED, (), 1, admitted(norms, 1, bids))
    assert set(made.values()) == {1.0}


def test_what_an_organisation_says_of_its_steps_wins_it_three_times_the_others_norm_at_most() -> None:
    bids = dict.fromkeys(FOUR, Bid(2, 2)) | {"medical": Bid(25, 2)}
    norms = dict.fromkeys(FOUR, 1.0) | {"medical": 10.0}
    assert clipping(CLIPPED, (), 1, admitted(norms, 1, bids))[f.address("medical")] == pytest.approx(0.3)


def test_a_calibration_is_measured_by_itself() -> None:
    """It begins with a high learning rate, where the rounds before it have ended near zero."""
    ended = line({"medical": 1.0}, dict.fromkeys(FOUR, 1e-6))
    assert [SHORT.training.schedule(n) for n in (1, 2, 3, 6, 7)] == [0, 0, 1, 1, 2]
    made = clipping(SHORT, ended, 3, admitted({"medical": 1.0, "coding": 1.1}, 3))
    assert set(made.values()) == {1.0}


@pytest.mark.parametrize("rule", ["none", "multi-krum", "trimmed-mean"])
def test_other_rules_clip_nothing(rule: str) -> None:
    genesis = replace(CLIPPED, robust=Robust(rule, 0.0))
    assert set(found({"medical": 1.0, "coding": 99.0}, genesis=genesis).values()) == {1.0}


def test_updates_of_zeros_count_whole_and_have_no_vote() -> None:
    a, b = (Address(f"0x{i:040x}") for i in (1, 2))
    assert clip_factors(1.5, {a: Vote(0.0, 1.0), b: Vote(3.0, 1.0)}) == {a: 1.0, b: 1.0}
    assert clip_factors(1.5, {a: Vote(0.0, 1.0), b: Vote(0.0, 1.0)}) == {a: 1.0, b: 1.0}
    assert clip_factors(1.5, {}) == {}
