"""Plays policies and agents on a market: who takes part in each round, and at which effort."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.agent import Agent
from agents.market import Market, MarketRound, Scenario
from agents.q_function import Action, QFunction
from benchmarks.agents import fit
from benchmarks.agents.figures import PlayedRun
from core import seeds
from core.canonical import Address
from core.policies import POLICIES, Observation, Policy, SelectionContext
from core.update import Bid

SCENARIO = Path(__file__).parents[2] / "conf" / "agents" / "market.toml"
RANK = 8

Chooser = Callable[[Market, Sequence[MarketRound]], NDArray[np.int64]]
"""(market before a round, outcomes of the rounds before) -> everybody's action."""


def read_market() -> Scenario:
    """The market of conf/agents/market.toml on the fitted learning curves."""
    return Scenario.read(SCENARIO, fit.read())


def traces_of(scenario: Scenario, section: str, name: str) -> range:
    """The numbers of the traces in a section of a scenario's file."""
    first, last = scenario.settings[section][name]
    return range(first, last + 1)


def compare(scenario: Scenario, members: int, traces: Sequence[int]) -> dict[str, list[PlayedRun]]:
    """Every policy on every trace."""
    played: dict[str, list[PlayedRun]] = {}
    for trace in traces:
        # Each policy has a market of its own, drawn alike.
        named = choosers(Market(scenario, members, trace), trace) | {"oracle": oracle}
        for name, chooser in named.items():
            played.setdefault(name, []).append(play(Market(scenario, members, trace), chooser))
    return played


def play(market: Market, choose: Chooser) -> PlayedRun:
    """One run. Saboteurs always take part in full, whatever is asked of them."""
    start, rounds = market.loss, list[MarketRound]()
    while not market.over:
        actions = np.where(market.kinds == "saboteur", int(Action.FULL), choose(market, rounds))
        rounds.append(market.step(actions))
    return PlayedRun(market.kinds, market.run, start, tuple(rounds))


def bidding(agents: Sequence[Agent]) -> Chooser:
    """The agents decide. The bid for a round is made with the payments up to the round before the last."""

    def choose(market: Market, rounds: Sequence[MarketRound]) -> NDArray[np.int64]:
        number = market.number
        if number == 1:
            for k, agent in enumerate(agents):
                agent.decide(1, market.prices(k, 1))
        actions = np.zeros(market.members, np.int64)
        for k, agent in enumerate(agents):
            if rounds:  # the message of this round tells the income of the last one, and what was spent there
                if rounds[-1].actions[k]:
                    agent.perform(number - 1, market.prices(k, number - 1))
                agent.settle(number - 1, float(rounds[-1].incomes[k]))
            actions[k] = agent.due(number, market.prices(k, number))
            if number < market.rounds:
                agent.decide(number + 1, market.prices(k, number))
        return actions

    return choose


def selected(policy: Policy, trace: int, fraction: float) -> Chooser:
    """A policy of `core.policies`, applied to the available organisations."""

    def choose(market: Market, rounds: Sequence[MarketRound]) -> NDArray[np.int64]:
        available = np.flatnonzero(market.available[market.number])
        actions = np.zeros(market.members, np.int64)
        if not len(available):
            return actions
        context = SelectionContext(
            seed=trace,
            members=[_address(k) for k in available],
            number=market.number,
            full=Bid(market.run["steps"], RANK),
            fraction=fraction,
            examples={_address(k): int(n) for k, n in enumerate(market.examples)},
            history=[_observations(outcome) for outcome in rounds],
        )
        actions[[int(address, 16) for address in policy(context)]] = Action.FULL
        return actions

    return choose


def oracle(market: Market, rounds: Sequence[MarketRound]) -> NDArray[np.int64]:
    """The actions of the highest welfare in this round, by coordinate ascent from those of the last."""
    actions = rounds[-1].actions.copy() if rounds else np.full(market.members, int(Action.FULL))
    best = market.preview(actions)
    for _sweep in range(3):
        before = best
        for member in np.flatnonzero(market.available[market.number]):
            for action in Action:
                kept, actions[member] = actions[member], int(action)
                welfare = market.preview(actions)
                if welfare > best + 1e-12:  # no steps in circles for a rounding error
                    best = welfare
                else:
                    actions[member] = kept
        if best <= before:
            break
    return actions


def choosers(market: Market, trace: int) -> dict[str, Chooser]:
    """Every policy that a run can choose, new for one run on this market; the agents begin untaught."""
    scenario = market.scenario
    fraction = scenario.settings["policies"]["fraction"]
    policies = {name: policy for name, policy in POLICIES.items() if name != "q-learning"}
    agents = [
        Agent(
            market.terms(k),
            seeds.as_int(seeds.local(trace, _address(k), 0)),  # as a node draws it
            QFunction.untaught(scenario.learning),
        )
        for k in range(market.members)
    ]
    return {name: selected(policy, trace, fraction) for name, policy in policies.items()} | {
        "q-learning": bidding(agents)
    }


def _observations(outcome: MarketRound) -> dict[Address, Observation]:
    """What policies see of each organisation that took part in a round."""
    return {
        _address(k): Observation(float(outcome.training[k]), float(outcome.seconds[k]), float(outcome.credit[k]))
        for k in np.flatnonzero(outcome.actions)
    }


def _address(member: int | np.integer[Any]) -> Address:
    # From 0, unlike elsewhere: random policies hash addresses, so other ones would change every published figure.
    return Address(f"0x{member:040x}")
