"""Who takes part: the agents against every baseline, on the market of conf/agents/market.toml.

    python -m benchmarks.agents [--members 8 …] [--traces 20]

All policies see the same organisations, prices and availability, trace by trace (`agents.market`); a policy that wants
a number of organisations asks for half of those who are there. The agents learn in three ways:

    q-learning              from zero, within the run: whatever learning costs is in its figures
    q-learning pre-trained  from one table that 20 other traces of 32 organisations have taught, then on their own
    q-learning charged      the same, with the cost of the training traces added, spread evenly over the test traces

The target of a trace is nine tenths of the fall of the loss that everyone-always reaches in it; a run that does not
reach it counts with its whole cost, and the share that does is given. Welfare is what the fall of the mean loss is
worth to all organisations less everybody's costs; the pool only moves money. The oracle knows the market's truth and
takes the actions of the highest welfare of each single round, found by coordinate ascent: a strong reference, not a
bound. Intervals are ±, 95 %, Student's t over the traces.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.agent import Agent
from agents.market import FREE_RIDERS, Market, MarketRound, Scenario
from agents.policies import POLICIES, Observation, Policy, SelectionContext
from agents.table import Action, QTable
from benchmarks import agents_fit, report
from core.canonical import Address
from core.update import Bid
from unlearning.metrics import mean_interval

SCENARIO = Path(__file__).parent.parent / "conf" / "agents" / "market.toml"
RANK = 8
SEED = 7

Float64 = NDArray[np.float64]
Chooser = Callable[[Market, Sequence[MarketRound]], NDArray[np.int64]]
"""(market before a round, what the rounds before it gave) -> everybody's action."""


@dataclass(frozen=True, eq=False)
class Played:
    """One run: what its members are, the market's terms, the mean loss at the start, and every round."""

    kinds: NDArray[np.str_]
    run: Mapping[str, Any]
    start: float
    rounds: tuple[MarketRound, ...]

    @property
    def losses(self) -> Float64:
        """The mean loss after every round."""
        return np.array([outcome.losses.mean() for outcome in self.rounds])

    @property
    def costs(self) -> Float64:
        """What each round cost all together."""
        return np.array([outcome.costs.sum() for outcome in self.rounds])

    @property
    def payoffs(self) -> Float64:
        """What each organisation has gained."""
        found: Float64 = np.sum([outcome.incomes - outcome.costs for outcome in self.rounds], axis=0)
        return found

    @property
    def welfare(self) -> float:
        """What the fall of the loss is worth to all, less all costs."""
        worth = self.run["value"] * len(self.kinds) * (self.start - self.losses[-1])
        return float(worth - self.costs.sum())


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    scenario = read_market()
    parser.add_argument("--members", type=int, nargs="*", default=scenario.settings["members"]["counts"])
    parser.add_argument("--traces", type=int, choices=(5, 10, 20), default=20)
    options = parser.parse_args()
    first, _ = scenario.settings["traces"]["test"]
    traces = range(first, first + options.traces)
    taught, charge = pre_trained(scenario, 32)
    figures: dict[str, Any] = {}
    for members in options.members:
        played = compare(scenario, members, traces, taught)
        extra = charge * members / 32 / len(traces)
        figures[f"{members} organisations"] = measured(played, extra)
        sys.stderr.write(f"{members} organisations done\n")
    figures["training"] = {
        "traces": _count(scenario, "train"),
        "members": 32,
        "cost": charge,
        "states": len(taught.cells),
    }
    report.write("agents", figures, "python -m benchmarks.agents", SEED)
    for name, values in figures.items():
        print(name)
        print(json.dumps(values, indent=1))


def compare(scenario: Scenario, members: int, traces: Sequence[int], taught: QTable) -> dict[str, list[Played]]:
    """Every policy on every trace."""
    played: dict[str, list[Played]] = {}
    for trace in traces:
        named = choosers(Market(scenario, members, trace), trace, taught) | {"oracle": oracle}
        for name, chooser in named.items():
            played.setdefault(name, []).append(play(Market(scenario, members, trace), chooser))
    return played


def play(market: Market, choose: Chooser) -> Played:
    """One run. Saboteurs always take part in full, whatever is asked of them."""
    start, rounds = market.loss, list[MarketRound]()
    while not market.over:
        actions = np.where(market.kinds == "saboteur", int(Action.FULL), choose(market, rounds))
        rounds.append(market.step(actions))
    return Played(market.kinds, market.run, start, tuple(rounds))


def pre_trained(scenario: Scenario, members: int) -> tuple[QTable, float]:
    """One table that all organisations of the training traces have taught, and what those runs cost."""
    table, cost = QTable(scenario.learning), 0.0
    first, last = scenario.settings["traces"]["train"]
    for trace in range(first, last + 1):
        market = Market(scenario, members, trace)
        agents = [Agent(market.terms(k), trace * members + k, table) for k in range(members)]
        cost += float(play(market, consulted(agents)).costs.sum())
    return table, cost


def consulted(agents: Sequence[Agent]) -> Chooser:
    """The agents decide. The bid for a round is made with the payments up to the round before the last."""

    def choose(market: Market, rounds: Sequence[MarketRound]) -> NDArray[np.int64]:
        number = market.number
        if number == 1:
            for k, agent in enumerate(agents):
                agent.decide(1, market.prices(k, 1))
        actions = np.zeros(market.members, np.int64)
        for k, agent in enumerate(agents):
            if rounds:  # message `number` tells what the round before it paid, and what was spent there
                _book(agent, number - 1, k, rounds[-1], market)
            decision = agent.decision(number)
            actions[k] = decision.action if decision else 0
            if number < market.rounds:
                agent.decide(number + 1, market.prices(k, number))
        return actions

    return choose


def _book(agent: Agent, number: int, member: int, outcome: MarketRound, market: Market) -> None:
    if outcome.actions[member]:
        agent.perform(number, market.prices(member, number))
    agent.settle(number, float(outcome.incomes[member]))


def selected(policy: Policy, trace: int, fraction: float) -> Chooser:
    """A policy of `agents.policies`, which is told who is there."""

    def choose(market: Market, rounds: Sequence[MarketRound]) -> NDArray[np.int64]:
        there = np.flatnonzero(market.available[market.number])
        actions = np.zeros(market.members, np.int64)
        if not len(there):
            return actions
        question = SelectionContext(
            seed=trace,
            members=[_address(k) for k in there],
            number=market.number,
            full=Bid(market.run["steps"], RANK),
            fraction=fraction,
            examples={_address(k): int(n) for k, n in enumerate(market.examples)},
            history=[_shown(outcome) for outcome in rounds],
        )
        actions[[int(address, 16) for address in policy(question)]] = Action.FULL
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
                worth = market.preview(actions)
                if worth > best + 1e-12:
                    best = worth
                else:
                    actions[member] = kept
        if best <= before:
            break
    return actions


def choosers(market: Market, trace: int, taught: QTable) -> dict[str, Chooser]:
    """Every policy that a run can choose, new for one run on this market; the agents from zero and taught."""
    scenario, members = market.scenario, market.members
    fraction = scenario.settings["policies"]["fraction"]
    named = {name: policy for name, policy in POLICIES.items() if name != "q-learning"}
    terms = [market.terms(k) for k in range(members)]
    seeds = [trace * members + k for k in range(members)]
    new = [Agent(t, s, QTable(scenario.learning)) for t, s in zip(terms, seeds, strict=True)]
    old = [Agent(t, s, deepcopy(taught), decisions=_EXPERIENCED) for t, s in zip(terms, seeds, strict=True)]
    return {name: selected(policy, trace, fraction) for name, policy in named.items()} | {
        "q-learning": consulted(new),
        "q-learning pre-trained": consulted(old),
    }


_EXPERIENCED = 100
"""Decisions that a pre-trained agent counts as made: it explores as little as one that has made them."""


def measured(played: Mapping[str, list[Played]], charge: float) -> dict[str, Any]:
    """All figures of one number of organisations, and how they meet the targets."""
    targets = [run.start - 0.9 * (run.start - run.losses[-1]) for run in played["all"]]
    best = [run.welfare for run in played["oracle"]] if "oracle" in played else None
    found = {name: _figures(runs, targets, best, 0.0) for name, runs in played.items()}
    if "q-learning pre-trained" in played:
        found["q-learning charged"] = _figures(played["q-learning pre-trained"], targets, best, charge)
    cost = {
        name: np.array([_to_target(r, t)[1] for r, t in zip(runs, targets, strict=True)])
        for name, runs in played.items()
    }
    final = {name: np.array([run.losses[-1] for run in runs]) for name, runs in played.items()}
    against = [
        {
            "agents": name,
            "against": other,
            "cost_to_target_percent": interval(100 * (cost[name] / cost[other] - 1)),
            "final_loss_percent": interval(100 * (final[name] / final[other] - 1)),
        }
        for name in ("q-learning", "q-learning pre-trained")
        for other in ("all", "oort", "random")
        if {name, other} <= cost.keys()
    ]
    return {"policies": [{"policy": name} | values for name, values in found.items()], "against": against}


def _figures(
    runs: Sequence[Played], targets: Sequence[float], best: Sequence[float] | None, charge: float
) -> dict[str, str]:
    reached = [_to_target(run, target) for run, target in zip(runs, targets, strict=True)]
    honest = [run.kinds == "honest" for run in runs]
    riders = [np.isin(run.kinds, FREE_RIDERS) for run in runs]
    pays = [float(run.payoffs[h].mean()) for run, h in zip(runs, honest, strict=True)]
    incomes = [np.sum([o.incomes for o in run.rounds], axis=0) for run in runs]
    rides = [float(i[r].mean() / max(i[h].mean(), 1e-9)) for i, r, h in zip(incomes, riders, honest, strict=True)]
    losing = [float((run.payoffs[h] < 0).mean()) for run, h in zip(runs, honest, strict=True)]
    worst = [float(run.payoffs[h].min()) for run, h in zip(runs, honest, strict=True)]
    welfare = [run.welfare - charge for run in runs]
    found = {
        "target_reached_share": [float(r[0]) for r in reached],
        "rounds_to_target": [r[2] for r in reached],
        "cost_to_target": [r[1] + charge for r in reached],
        "mib_to_target": [r[3] for r in reached],
        "total_cost": [float(run.costs.sum()) + charge for run in runs],
        "final_loss": [float(run.losses[-1]) for run in runs],
        "worst_slice_loss": [float(run.rounds[-1].losses.max()) for run in runs],
        "fairness_jain": [_jain(i[h]) for i, h in zip(incomes, honest, strict=True)],
        "welfare": welfare,
        "honest_payoff": pays,
        "worst_honest_payoff": worst,
        "honest_worse_than_abstaining_share": losing,
        "rider_income_over_honest": rides,
        "rider_payoff": [float(run.payoffs[r].mean()) for run, r in zip(runs, riders, strict=True)],
    }
    if best is not None:
        found["regret_to_oracle"] = [b - w for b, w in zip(best, welfare, strict=True)]
    return {name: interval(np.array(values, np.float64)) for name, values in found.items()}


def _to_target(run: Played, target: float) -> tuple[bool, float, float, float]:
    """Whether the target was reached, and cost, rounds and MiB until then or the end."""
    below = np.flatnonzero(run.losses <= target)
    last = int(below[0]) if len(below) else len(run.losses) - 1
    took = sum(int((outcome.actions > 0).sum()) for outcome in run.rounds[: last + 1])
    return bool(len(below)), float(run.costs[: last + 1].sum()), float(last + 1), took * run.run["traffic"]


def _jain(values: Float64) -> float:
    """(Σ x)² / (n Σ x²): Jain et al., 1984."""
    square = float(np.sum(values**2))
    return float(np.sum(values)) ** 2 / (len(values) * square) if square > 0 else 1.0


def interval(values: Float64) -> str:
    """The mean and half of its 95 % interval."""
    found = mean_interval(values)
    return f"{found.mean:.4g} ± {found.high - found.mean:.2g}"


def _shown(outcome: MarketRound) -> dict[Address, Observation]:
    """What the round showed of those who took part."""
    return {
        _address(k): Observation(float(outcome.training[k]), float(outcome.seconds[k]), float(outcome.credit[k]))
        for k in np.flatnonzero(outcome.actions)
    }


def read_market() -> Scenario:
    """The market of conf/agents/market.toml on the curve that was fitted."""
    return Scenario.read(SCENARIO, agents_fit.read())


def _count(scenario: Scenario, which: str) -> int:
    first, last = scenario.settings["traces"][which]
    return int(last - first + 1)


def _address(member: int | np.integer[Any]) -> Address:
    return Address(f"0x{member:040x}")


if __name__ == "__main__":
    main()
