"""The market as an environment that PettingZoo accepts, with the standard headings."""

import numpy as np
import pytest
from pettingzoo.test import parallel_api_test, parallel_seed_test

from agents.market import Market
from agents.q_function import Action
from benchmarks.agents.environment import MarketEnv
from tests.agents.test_market import SCENARIO, everyone


def test_pettingzoo_accepts_the_environment() -> None:
    parallel_api_test(MarketEnv(SCENARIO, 6), num_cycles=70)
    parallel_seed_test(lambda: MarketEnv(SCENARIO, 6), num_cycles=35)


def test_its_documentation_has_the_standard_headings() -> None:
    headings = [line.strip() for line in (MarketEnv.__doc__ or "").splitlines() if line.strip().startswith("## ")]
    standard = ("Description", "Action Space", "Observation Space", "Rewards", "Starting State", "Episode End")
    assert headings == [f"## {name}" for name in (*standard, "Arguments", "Version History")]


def test_rewards_are_the_payoffs_one_round_late() -> None:
    env, same = MarketEnv(SCENARIO, 8, trace=3), Market(SCENARIO, 8, 3)
    env.reset()
    payoffs, rewards = np.zeros(8), np.zeros(8)
    while env.agents:
        first = not payoffs.any()
        _, paid, _, _, _ = env.step(dict.fromkeys(env.possible_agents, int(Action.FULL)))
        outcome = same.step(everyone(8))
        if first:
            assert not any(paid.values())
        payoffs += outcome.incomes - outcome.costs
        rewards += np.array(list(paid.values()))
    assert rewards == pytest.approx(payoffs)


def test_what_is_observed_does_not_know_the_last_rounds_payments() -> None:
    env = MarketEnv(SCENARIO, 8, trace=3)
    observed, _ = env.reset()
    gains = [[part[0] for part in observed.values()]]
    for _ in range(2):
        observed, *_ = env.step(dict.fromkeys(env.possible_agents, int(Action.FULL)))
        gains.append([part[0] for part in observed.values()])
        assert all(env.observation_space(name).contains(part) for name, part in observed.items())
    assert not any(gains[0])
    assert not any(gains[1])
    assert any(gains[2])
