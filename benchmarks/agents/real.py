"""Participation in real federated rounds: the policies and the agents, and what each kind of free-rider earns.

    python -m benchmarks.agents.real --data FOLDER --base FOLDER [--only NAME …] [--traces FIRST LAST]
    python -m benchmarks.agents.real --data FOLDER --base smollm2 --scenario speaking
    python -m benchmarks.agents.tables [--scenario NAME]

Prices, pool, availability, policies and free-riders are those of conf/agents/real.toml, or of speaking.toml for a base
that speaks; the same for every policy, trace by trace. Training, aggregation, validation and credit are real
(`benchmarks.agents.federation`). The figures are those of `benchmarks.agents` but for the regret, since no oracle knows
the truth here. An organisation that always abstains earns and spends nothing: its payoff is 0, whatever the others do.

A free-rider trains nothing and reports the loss on its own domain as its training loss. Runs are kept one by one in
benchmarks/measured, so that a measurement that stops can go on; the last command makes tables of them.
"""

import argparse
import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.market import Effect, Market, Scenario
from agents.q_function import Action
from benchmarks import arguments, report
from benchmarks.agents import fit, market
from benchmarks.agents.federation import DOMAINS, RealFederation, RoundSettings, create_federation
from benchmarks.agents.market import traces_of
from core.credit import RoundCredit
from core.update import Bid

SCENARIOS = ("real", "speaking")
SEED = 7
PLAIN = ("actions", "credit", "costs", "incomes", "losses", "seconds", "training")
"""The fields of a `MarketRound` that a kept run has of every round, besides the credits by domain."""

Float64 = NDArray[np.float64]


class RealMarket(Market):
    """A market whose rounds are real."""

    def __init__(self, scenario: Scenario, federation: RealFederation, trace: int) -> None:
        self.trace, self.federation = trace, federation
        super().__init__(scenario, len(federation.members), trace)
        # `super().__init__` has drawn the kinds.
        members = zip(federation.members, self.kinds, strict=True)
        self.riders = {member.address: str(kind) for member, kind in members if kind != "honest"}
        self.credits: list[RoundCredit | None] = []

    def draw_organisations(self) -> None:
        """As in the market, with the real members' data."""
        super().draw_organisations()
        self.examples = np.array([float(len(member.records)) for member in self.federation.members])
        self.own_domain = np.array([DOMAINS.index(member.domain) for member in self.federation.members])

    def draw_kinds(
        self,
        settings: Mapping[str, Any],  # noqa: ARG002 - the scenario names the free-riders one by one
    ) -> NDArray[np.str_]:
        """Two free-riders, the next pair for each trace."""
        kinds = np.full(self.members, "honest", dtype="<U8")
        pairs = self.scenario.settings["riders"]["pairs"]
        kinds[self._draws.permutation(self.members)[: len(pairs[0])]] = pairs[self.trace % len(pairs)]
        return kinds

    @property
    def losses(self) -> Float64:
        """The loss on every domain now."""
        return np.array([self.federation.losses[-1][name] for name in DOMAINS])

    @property
    def loss(self) -> float:
        """The mean loss over the domains now."""
        return float(self.losses.mean())

    def effect(self, took: NDArray[np.int64]) -> Effect:
        """Train, aggregate, validate and credit a round."""
        federation, settings = self.federation, self.federation.settings
        before = dict(zip(DOMAINS, self.losses, strict=True))
        acting = zip(federation.members, took, strict=True)
        bids = {m.address: Action(int(action)).bid(settings.steps, settings.rank) for m, action in acting}
        made = {address: bid for address, bid in bids.items() if bid}
        credit = federation.round(made, self.riders) if made else None
        if credit is None:
            federation.advance({}, self.riders)
        self.credits.append(credit)
        mean = credit.mean if credit else {}
        trained = {a: loss for a, loss in federation.trained.items() if a not in self.riders}
        return Effect(
            credit=np.array([mean.get(member.address, 0.0) for member in federation.members]),
            training=np.array([trained.get(m.address, before[m.domain]) for m in federation.members]),
            losses=self.losses,
        )


def main() -> None:
    """Measure every missing run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=arguments.folder, required=True)
    parser.add_argument("--base", required=True, help="a folder, or smollm2")
    parser.add_argument("--scenario", choices=SCENARIOS, default=SCENARIOS[0])
    parser.add_argument("--only", nargs="*", default=[""], help="policies, or `ride`: what the runs' names begin with")
    parser.add_argument(
        "--traces", type=arguments.count(0), nargs=2, default=(0, 2**31), help="so that processes can share the work"
    )
    options = parser.parse_args()
    scenario = read_scenario(options.scenario)
    run, training = scenario.settings["run"], scenario.settings["training"]
    federation = create_federation(
        options.data, options.base, RoundSettings(run["rounds"], run["steps"], **training), SEED
    )
    traces = range(options.traces[0], options.traces[1] + 1)
    for (name, trace), measure in runs_of(scenario, federation).items():
        if trace in traces and name.startswith(tuple(options.only)):
            report.kept("agents", key(options.scenario, name, trace), measure)


def read_scenario(name: str = SCENARIOS[0]) -> Scenario:
    """The scenario of conf/agents/NAME.toml."""
    return Scenario.read(market.SCENARIO.with_name(f"{name}.toml"), fit.read())


def key(scenario: str, name: str, trace: int) -> str:
    """What a run is kept under."""
    return f"{scenario}-{name.replace(' ', '-')}-{trace}"


def runs_of(scenario: Scenario, federation: RealFederation) -> dict[tuple[str, int], Callable[[], dict[str, Any]]]:
    """By name and trace: every policy on every trace, and every kind of free-rider apart."""
    rides = scenario.settings["rides"]
    played = itertools.product(scenario.settings["policies"]["names"], traces_of(scenario, "traces", "test"))
    ridden = itertools.product(rides["kinds"], traces_of(scenario, "rides", "traces"))
    return {(name, trace): partial(_played, scenario, federation, name, trace) for name, trace in played} | {
        (f"ride {kind}", trace): partial(_ridden, rides["rounds"], federation, kind, trace) for kind, trace in ridden
    }


def _played(scenario: Scenario, federation: RealFederation, name: str, trace: int) -> dict[str, Any]:
    real = RealMarket(scenario, _restarted(federation, trace), trace)
    played = market.play(real, market.choosers(real, trace)[name])
    rounds = [
        {name: getattr(outcome, name).tolist() for name in PLAIN} | {"domains": _by_domain(credit)}
        for outcome, credit in zip(played.rounds, real.credits, strict=True)
    ]
    return {"kinds": real.kinds.tolist(), "start": played.start, "rounds": rounds}


def _ridden(rounds: int, federation: RealFederation, kind: str, trace: int) -> dict[str, Any]:
    """Everybody takes part in full in every round; the trace draws the free-rider."""
    again, full = _restarted(federation, trace), Bid(federation.settings.steps, federation.settings.rank)
    rider = again.members[trace % len(again.members)].address
    bids = dict.fromkeys((member.address for member in again.members), full)
    found = [_by_domain(again.round(bids, {rider: kind})) for _ in range(rounds)]
    return {"rider": rider, "kind": kind, "rounds": found, "losses": again.losses}


def _restarted(federation: RealFederation, seed: int) -> RealFederation:
    """The same federation from the start, with other draws."""
    return replace(federation, seed=seed, states=[], losses=[], sent={}, trained={})


def _by_domain(credit: RoundCredit | None) -> dict[str, Any]:
    """The credit of a round by domain, as it is kept; empty for a round of nobody."""
    return {
        name: {"change": part.change, "credits": dict(part.credits), "nobody": part.nobody, "residual": part.residual}
        for name, part in (credit.domains.items() if credit else ())
    }


if __name__ == "__main__":
    main()
