"""Participation in real federated rounds: the policies and the agents, and what each kind of free-rider earns.

    python -m benchmarks.agents.real --data FOLDER --base FOLDER [--only NAME …] [--traces FIRST LAST]
    python -m benchmarks.agents.tables

Prices, pool, availability and free-riders are those of conf/agents/real.toml, the same for every policy, trace by
trace; training, aggregation, validation and credit are real (`benchmarks.agents.federation`). The figures are those of
`benchmarks.agents` but for the regret, since no oracle knows the truth here. An organisation that always abstains
earns and spends nothing: its payoff is 0, whatever the others do.

A free-rider trains nothing and reports the loss on its own domain as its training loss. Runs are kept one by one in
~/.cache/foedus-benchmarks/agents, so that a measurement that stops can go on; the second command makes tables of them.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.market import Effect, Market, Scenario
from agents.q_function import Action
from benchmarks.agents import fit, market
from benchmarks.agents.federation import DOMAINS, RealFederation, RoundSettings, create_federation
from benchmarks.agents.market import traces_of
from benchmarks.timing import cpu_timed
from core.credit import RoundCredit
from core.storage import blobs
from core.update import Bid

SCENARIO = market.SCENARIO.with_name("real.toml")
RAW = Path.home() / ".cache" / "foedus-benchmarks" / "agents"
SEED = 7
NAMES = (
    "all",
    "q-learning",
    "oort",
    "random",
    "greedy",
    "ucb",
    "round-robin",
    "power-of-choice",
)
"""In the order in which they are measured."""
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
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=[*NAMES, "rides"], help="policies to run, or rides")
    parser.add_argument("--traces", type=int, nargs=2, default=(0, 2**31), help="so that processes can share the work")
    options = parser.parse_args()
    scenario = read_scenario()
    run, training = scenario.settings["run"], scenario.settings["training"]
    federation = create_federation(
        options.data, options.base, RoundSettings(run["rounds"], run["steps"], **training), SEED
    )
    traces = range(options.traces[0], options.traces[1] + 1)
    _compare(scenario, federation, [name for name in NAMES if name in options.only], traces)
    if "rides" in options.only:
        _ride(scenario, federation, traces)


def read_scenario() -> Scenario:
    """The scenario of conf/agents/real.toml."""
    return Scenario.read(SCENARIO, fit.read())


def path_of(name: str, trace: int) -> Path:
    """The file of a run."""
    return RAW / f"{name.replace(' ', '-')}-{trace}.json"


def _compare(scenario: Scenario, federation: RealFederation, names: Sequence[str], traces: range) -> None:
    """Every named policy on every trace among `traces`, one file a run."""
    for name, trace in itertools.product(names, traces_of(scenario, "traces", "test")):
        path = path_of(name, trace)
        if trace in traces and not path.exists():
            real = RealMarket(scenario, _restarted(federation, trace), trace)
            chooser = market.choosers(real, trace)[name]
            played, seconds = cpu_timed(partial(market.play, real, chooser))
            rounds = [
                {name: getattr(outcome, name).tolist() for name in PLAIN} | {"domains": _by_domain(credit)}
                for outcome, credit in zip(played.rounds, real.credits, strict=True)
            ]
            run = {"kinds": real.kinds.tolist(), "start": played.start, "rounds": rounds}
            blobs.write(path, json.dumps(run).encode())
            sys.stderr.write(f"{name}, trace {trace}: {played.losses[-1]:.3f}, {seconds:.0f} s\n")


def _ride(scenario: Scenario, federation: RealFederation, traces: range) -> None:
    """Each kind of free-rider apart: everybody takes part in full in every round; the trace draws the free-rider."""
    rides = scenario.settings["rides"]
    full = Bid(federation.settings.steps, federation.settings.rank)
    for trace, kind in itertools.product(traces_of(scenario, "rides", "traces"), rides["kinds"]):
        path = path_of(f"ride {kind}", trace)
        if trace in traces and not path.exists():
            again = _restarted(federation, trace)
            rider = again.members[trace % len(again.members)].address
            bids = dict.fromkeys((member.address for member in again.members), full)
            rounds = [_by_domain(again.round(bids, {rider: kind})) for _ in range(rides["rounds"])]
            run = {"rider": rider, "kind": kind, "rounds": rounds, "losses": again.losses}
            blobs.write(path, json.dumps(run).encode())
            sys.stderr.write(f"{kind}, trace {trace}\n")


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
