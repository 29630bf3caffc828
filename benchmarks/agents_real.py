"""Who takes part, on real federated runs: the policies and the agents, and what each kind of free-rider earns.

    python -m benchmarks.agents_real --data FOLDER --base FOLDER [--only NAME …] [--traces FIRST LAST]
    python -m benchmarks.agents_real_tables

Prices, pool, availability and riders are those of conf/agents/real.toml, the same for every policy, trace by trace;
training, aggregation, validation and credit are real (`benchmarks.agents_world`). The figures are those of
`benchmarks.agents`, but for the regret: nobody knows the truth here. "q-learning pre-trained" begins with the table
that the market's training traces have taught, "charged" pays for it. An organisation that always abstains is paid and
spends nothing: its payoff is 0, whatever the others do.

A free-rider trains nothing and says that its training loss was the loss on its own domain. Runs are kept one by one
in ~/.cache/foedus-benchmarks/agents, so that a measurement that stops can go on.
The second command makes tables of them.
"""

import argparse
import itertools
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.credit import RoundCredit
from agents.market import Effect, Market, Scenario
from agents.table import Action
from benchmarks import agents, agents_fit
from benchmarks.agents import Played
from benchmarks.agents_world import DOMAINS, Setting, World, found
from core.canonical import Address
from core.update import Bid

SCENARIO = agents.SCENARIO.with_name("real.toml")
RAW = Path.home() / ".cache" / "foedus-benchmarks" / "agents"
SEED = 7
NAMES = (
    "all",
    "q-learning",
    "q-learning pre-trained",
    "oort",
    "random",
    "greedy",
    "ucb",
    "round-robin",
    "power-of-choice",
)
"""In the order in which they are measured."""
PLAIN = ("actions", "credit", "costs", "incomes", "losses", "seconds", "training")

Float64 = NDArray[np.float64]
Raw = dict[str, Any]
"""A run as it is kept: kinds, start, rounds (every field of `MarketRound`, and the credits by domain)."""


class Federation(Market):
    """A market whose rounds are real."""

    def __init__(self, scenario: Scenario, world: World, trace: int) -> None:
        self.trace, self.world = trace, world
        super().__init__(scenario, len(world.members), trace)
        self.riders = {m.address: str(k) for m, k in zip(world.members, self.kinds, strict=True) if k != "honest"}
        self.credits: list[RoundCredit | None] = []

    def draw_organisations(self) -> None:
        """As in the market, with the real members' data."""
        super().draw_organisations()
        self.examples = np.array([float(len(member.records)) for member in self.world.members])
        self.own_domain = np.array([DOMAINS.index(member.domain) for member in self.world.members])

    def draw_kinds(
        self,
        settings: Mapping[str, Any],  # noqa: ARG002 - the riders are named one by one
    ) -> NDArray[np.str_]:
        """Honest, but for the pair of free-riders whose turn it is."""
        kinds = np.full(self.members, "honest", dtype="<U8")
        pairs = self.scenario.settings["riders"]["pairs"]
        kinds[self._draws.permutation(self.members)[: len(pairs[0])]] = pairs[self.trace % len(pairs)]
        return kinds

    @property
    def loss(self) -> float:
        """The mean loss over the domains now."""
        return float(_losses(self.world).mean())

    def effect(self, took: NDArray[np.int64]) -> Effect:
        """Train, aggregate, validate and credit a round."""
        world, setting = self.world, self.world.setting
        losses = dict(zip(DOMAINS, _losses(world), strict=True))
        acting = zip(world.members, took, strict=True)
        bids = {m.address: Action(int(action)).bid(setting.steps, setting.rank) for m, action in acting}
        credit = self._advance({address: bid for address, bid in bids.items() if bid})
        self.credits.append(credit)
        mean = credit.mean if credit else {}
        trained = {a: loss for a, loss in world.trained.items() if a not in self.riders}
        return Effect(
            credit=np.array([mean.get(member.address, 0.0) for member in world.members]),
            training=np.array([trained.get(m.address, losses[m.domain]) for m in world.members]),
            losses=_losses(world),
        )

    def _advance(self, bids: Mapping[Address, Bid]) -> RoundCredit | None:
        if bids:
            return self.world.round(bids, self.riders)
        self.world.advance({}, self.riders)
        return None


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--only", nargs="*", help="policies to run, or rides")
    parser.add_argument("--traces", type=int, nargs=2, default=(0, 2**31), help="so that processes can share the work")
    options = parser.parse_args()
    scenario = Scenario.read(SCENARIO, agents_fit.read())
    run, training = scenario.settings["run"], scenario.settings["training"]
    world = found(options.data, options.base, Setting(run["rounds"], run["steps"], **training), SEED)
    names = options.only or [*NAMES, "rides"]
    traces = range(options.traces[0], options.traces[1] + 1)
    _compare(scenario, world, [name for name in NAMES if name in names], traces)
    if "rides" in names:
        _ride(scenario, world, traces)


def _compare(scenario: Scenario, world: World, names: Sequence[str], traces: range) -> None:
    """Every policy that is wanted on every trace that is, one file a run."""
    taught, _ = agents.pre_trained(agents.read_market(), 32)
    for name, trace in itertools.product(names, traces_of(scenario, "traces", "test")):
        path = path_of(name, trace)
        if trace in traces and not path.exists():
            started = time.process_time()
            market = Federation(scenario, _again(world, trace), trace)
            played = agents.play(market, agents.choosers(market, trace, taught)[name])
            _keep(path, market, played)
            sys.stderr.write(f"{name}, trace {trace}: {played.losses[-1]:.3f}, {time.process_time() - started:.0f} s\n")


def _ride(scenario: Scenario, world: World, traces: range) -> None:
    """Each kind of rider apart: everybody takes part in full in every round; who rides is drawn by the trace."""
    rides = scenario.settings["rides"]
    full = Bid(world.setting.steps, world.setting.rank)
    for trace, kind in itertools.product(traces_of(scenario, "rides", "traces"), rides["kinds"]):
        path = path_of(f"ride {kind}", trace)
        if trace in traces and not path.exists():
            again = _again(world, trace)
            rider = again.members[trace % len(again.members)].address
            bids = dict.fromkeys((member.address for member in again.members), full)
            rounds = [_slices(again.round(bids, {rider: kind})) for _ in range(rides["rounds"])]
            _write(path, {"rider": rider, "kind": kind, "rounds": rounds, "losses": again.losses})
            sys.stderr.write(f"{kind}, trace {trace}\n")


def _again(world: World, seed: int) -> World:
    """The same federation from the start, with other draws."""
    return World(world.model, world.members, world.domains, world.setting, seed)


def traces_of(scenario: Scenario, section: str, name: str) -> range:
    """The numbers of the traces that a section of the file names."""
    first, last = scenario.settings[section][name]
    return range(first, last + 1)


def path_of(name: str, trace: int) -> Path:
    """Where a run is kept."""
    return RAW / f"{name.replace(' ', '-')}-{trace}.json"


def _keep(path: Path, market: Federation, played: Played) -> None:
    rounds = [
        {name: getattr(outcome, name).tolist() for name in PLAIN} | {"domains": _slices(credit) if credit else {}}
        for outcome, credit in zip(played.rounds, market.credits, strict=True)
    ]
    _write(path, {"kinds": market.kinds.tolist(), "start": played.start, "rounds": rounds})


def _slices(credit: RoundCredit) -> dict[str, Any]:
    return {
        name: {"change": part.change, "credits": dict(part.credits), "nobody": part.nobody, "residual": part.residual}
        for name, part in credit.domains.items()
    }


def _write(path: Path, data: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(data), encoding="utf-8")
    new.replace(path)


def _losses(world: World) -> Float64:
    return np.array([world.losses[-1][name] for name in DOMAINS])


if __name__ == "__main__":
    main()
