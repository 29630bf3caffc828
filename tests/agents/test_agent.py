"""An organisation's agent: what it learns, what it spends, and when it stays away."""

import math
from dataclasses import replace

import numpy as np
import pytest

from agents.agent import Prices
from agents.table import Action
from core.errors import ConfigError, UsageError
from tests.agents.lives import PRICES, TERMS, agent, live


def test_an_agent_learns_to_take_part_where_it_pays_and_to_stay_away_where_it_does_not() -> None:
    paying, losing = {a: 3.0 * a.effort for a in Action}, dict.fromkeys(Action, 0.0)
    for seed in range(5):
        good, bad = agent(seed), agent(seed)
        table = good.table, bad.table
        for _ in range(5):  # the same organisation in five runs
            good, bad = agent(seed), agent(seed)
            good.table, bad.table = table
            earned, lost = live(good, paying), live(bad, losing)
        assert earned.count(Action.FULL) > 25
        assert lost.count(Action.ABSTAIN) > 25


def test_a_round_is_learnt_from_once_its_income_and_the_next_decision_are_known() -> None:
    player = agent(explore=0.0)
    player.decide(1, PRICES)
    player.perform(1, PRICES)
    player.decide(2, PRICES)
    assert not player.table.cells
    player.settle(1, 2.0)
    (cell,) = player.table.cells.values()
    assert sum(cell.visits) == 1
    assert [d.round for d in player.waiting] == [2]


def test_what_was_never_tried_looks_better_than_abstaining() -> None:
    assert agent(explore=0.0).decide(1, PRICES) is not Action.ABSTAIN


@pytest.mark.parametrize("budget", [0.0, 0.3, 1.7, 5.0])
def test_a_budget_is_never_overrun(budget: float) -> None:
    player = agent(3, replace(TERMS, budget=budget), explore=0.9)
    for number in range(1, 41):
        prices = Prices(0.04 * (1 + number % 5), 0.1)
        player.decide(number, prices)
        player.decide(number + 1, prices)  # two rounds are bid for before the first is trained
        player.perform(number, Prices(0.3, 0.1))  # and prices rise in between
        assert player.spent <= budget
        player.settle(number, 1.0)


def test_an_agent_that_cannot_pay_abstains() -> None:
    player = agent(terms=replace(TERMS, budget=0.0))
    assert player.decide(1, PRICES) is Action.ABSTAIN
    assert player.perform(1, PRICES) is None
    assert player.spent == 0.0


def test_asking_telling_and_performing_again_change_nothing() -> None:
    player = agent()
    action = player.decide(1, PRICES)
    player.perform(1, PRICES)
    player.settle(1, 2.0)
    before = player.to_bytes()
    assert player.decide(1, PRICES) is action
    player.perform(1, PRICES)
    player.settle(1, 7.0)
    assert player.to_bytes() == before


def test_a_round_that_is_over_is_not_decided_again() -> None:
    player = agent()
    player.decide(5, PRICES)
    with pytest.raises(UsageError, match="round 4 is over"):
        player.decide(4, PRICES)


def test_two_seeds_explore_differently_and_one_seed_alike() -> None:
    pays = dict.fromkeys(Action, 1.0)
    assert live(agent(1, explore=0.5), pays) == live(agent(1, explore=0.5), pays)
    assert live(agent(1, explore=0.5), pays) != live(agent(2, explore=0.5), pays)


def test_draws_are_spread_evenly() -> None:
    player = agent()
    drawn = [player._draw() for _ in range(4000)]
    assert drawn[7] == np.random.default_rng(player.seed).random(8)[7], "one sequence, whenever it is gone on with"
    assert all(0.0 <= value < 1.0 for value in drawn)
    counts = [sum(int(value * 10) == tenth for value in drawn) for tenth in range(10)]
    assert all(320 < count < 480 for count in counts)


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, "1"])
def test_amounts_that_are_none_are_refused(value: float) -> None:
    with pytest.raises(ConfigError, match=r"at least 0, got"):
        Prices(value, 0.0)
    with pytest.raises(ConfigError, match=r"at least 0, got"):
        replace(TERMS, budget=value)
    player = agent()
    player.decide(1, PRICES)
    with pytest.raises(ConfigError, match=r"at least 0, got"):
        player.settle(1, value)
