"""Who is asked in a round."""

from dataclasses import replace

import pytest

from agents.policies import POLICIES, everyone, random
from core.rounds import Genesis
from tests import federation as f

GENESIS = f.genesis()
LANE = GENESIS.lanes[0]


def drawing(fraction: float, quorum: int = 1) -> Genesis:
    participation = replace(GENESIS.participation, policy="random", fraction=fraction, quorum=quorum)
    return replace(GENESIS, participation=participation)


def test_everyone_is_everyone_in_the_lanes_order() -> None:
    assert everyone(GENESIS, LANE, 1) == list(LANE)


def test_a_draw_keeps_the_lanes_order_and_repeats() -> None:
    drawn = random(drawing(0.5), LANE, 3)
    assert drawn == [address for address in LANE if address in drawn]
    assert drawn == random(drawing(0.5), LANE, 3)


def test_a_fraction_of_one_draws_all() -> None:
    assert all(random(drawing(1.0), LANE, number) == list(LANE) for number in range(1, 20))


def test_the_share_drawn_is_the_fraction() -> None:
    drawn = sum(len(random(drawing(0.5), LANE, number)) for number in range(500))
    assert 0.45 < drawn / (500 * len(LANE)) < 0.57  # a little above one half: nobody is never drawn


def test_one_is_drawn_at_least() -> None:
    draws = [random(drawing(1e-9), LANE, number) for number in range(50)]
    assert all(len(drawn) == 1 for drawn in draws)
    assert len({drawn[0] for drawn in draws}) > 1


@pytest.mark.parametrize("quorum", [1, 2, 3, 4, 9])
def test_a_quorum_is_drawn_at_least_so_that_no_round_is_lost_from_the_start(quorum: int) -> None:
    for number in range(50):
        assert len(random(drawing(1e-9, quorum), LANE, number)) == min(quorum, 4)
        enough = random(drawing(0.5), LANE, number)
        if len(enough) >= quorum:
            assert random(drawing(0.5, quorum), LANE, number) == enough


@pytest.mark.parametrize("gone", range(4))
def test_a_draw_does_not_shift_when_someone_leaves(gone: int) -> None:
    rest = [address for index, address in enumerate(LANE) if index != gone]
    for number in range(1, 100):
        before = random(drawing(0.5), LANE, number)
        if remaining := [address for address in before if address in rest]:
            assert random(drawing(0.5), rest, number) == remaining


def test_policies_are_found_under_their_settings() -> None:
    assert set(POLICIES) == {"all", "random"}
