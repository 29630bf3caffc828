"""An organisation's agent: what it learns, what it spends, and when it stays away."""

import math
from dataclasses import replace

import pytest

from agents.agent import Prices
from agents.q_function import Action
from core.errors import ConfigError, UsageError
from tests.agents.lives import PRICES, TERMS, agent, live


def test_an_agent_learns_to_take_part_where_it_pays_and_to_stay_away_where_it_does_not() -> None:
    paying, losing = {a: 3.0 * a.effort for a in Action}, dict.fromkeys(Action, 0.0)
    for seed in range(4):
        earned, lost = live(agent(seed), paying), live(agent(seed), losing)
        assert earned.count(Action.FULL) >= 37, "all but the round whose predecessor is not paid yet, and a first"
        assert lost.count(Action.ABSTAIN) >= 38


def test_a_round_is_learnt_from_once_its_income_and_the_next_decision_are_known() -> None:
    player = agent()
    player.decide(1, PRICES)
    player.perform(1, PRICES)
    player.decide(2, PRICES)
    assert not any(player.values.visits)
    player.settle(1, 2.0)
    assert player.values.visits == [0, 0, 0, 1]
    assert [d.round for d in player.waiting] == [2]


def test_a_bid_that_was_not_trained_teaches_that_abstaining_pays_nothing() -> None:
    player = agent()
    assert player.decide(1, PRICES) is Action.FULL
    player.decide(2, PRICES)
    player.settle(1, 0.0)
    assert player.values.visits == [1, 0, 0, 0]


def test_half_of_the_agents_begin_with_the_first_round_and_the_others_with_the_second() -> None:
    pays = dict.fromkeys(Action, 1.0)
    begun = [live(agent(seed), pays, last=3) for seed in range(2)]
    assert begun[0] == [Action.FULL, Action.ABSTAIN, Action.FULL]
    assert begun[1] == [Action.ABSTAIN, Action.FULL, Action.ABSTAIN]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("paid", [0.0, 0.1, 0.5, 0.9])
def test_no_agent_loses_more_than_its_first_round_cost(seed: int, paid: float) -> None:
    """Not where rounds pay too little, nor where they pay at first and then nothing, nor when prices jump."""
    for until in (0, 3, 10):
        player = agent(seed)
        first = None
        for number in range(1, 41):
            prices = Prices(0.04 * (1 + 3 * (number > 12)), 0.1)
            player.decide(number, Prices(0.04, 0.1))
            cost = player.perform(number, prices)
            first = first if first is not None else cost
            if number > 1:
                done = player.decision(number - 1)
                player.settle(number - 1, 0.0 if done is None or number > until else paid * done.cost)
            assert player.spent - player.earned <= (first or 0.0) + 1e-9


def test_a_draft_is_paid_from_the_budget_and_is_not_an_agents_own_first_round() -> None:
    player = agent(1)
    assert player.decide(1, PRICES) is Action.ABSTAIN
    assert player.due(1, PRICES) is Action.ABSTAIN
    assert player.perform(1, PRICES) is None
    assert player.due(1, PRICES, drafted=True) is Action.LOW
    assert player.perform(1, PRICES, drafted=True) == PRICES.cost(Action.LOW, TERMS)
    assert player.risk is None
    poor = agent(1, replace(TERMS, budget=0.0))
    poor.decide(1, PRICES)
    assert poor.perform(1, PRICES, drafted=True) is None


@pytest.mark.parametrize("budget", [0.0, 0.3, 1.7, 5.0])
def test_a_budget_is_never_overrun(budget: float) -> None:
    player = agent(4, replace(TERMS, budget=budget))
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


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, "1"])
def test_amounts_that_are_none_are_refused(value: float) -> None:
    with pytest.raises(ConfigError, match=r"at least 0, got"):
        Prices(value, 0.0)
    with pytest.raises(ConfigError, match=r"at least 0, got"):
        replace(TERMS, budget=value)
    with pytest.raises(ConfigError, match="pool: expected more than 0"):
        replace(TERMS, pool=0.0)
    player = agent()
    player.decide(1, PRICES)
    with pytest.raises(ConfigError, match=r"at least 0, got"):
        player.settle(1, value)
