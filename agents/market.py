"""A market of organisations that decide, round by round, how much to take part: what policies and agents are tried on.

Nothing is trained here. What a round does to the loss on every slice of a common validation set is a curve that
`benchmarks/agents/fit.py` fits to real federated runs (`Curve`); who the organisations are, what they pay and when
they are there is drawn from `conf/agents/market.toml` and the number of a trace. `Market` is the plain simulation,
`MarketEnv` the same as a PettingZoo environment.
"""

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from gymnasium.spaces import Discrete, MultiDiscrete
from numpy.typing import NDArray
from pettingzoo import ParallelEnv

from agents.credit import incomes
from agents.q_learning import CLASSES, SHAPE, Action, Agent, Learning, Prices, QTable, Terms, parts_of
from core.canonical import Address
from core.errors import ConfigError, UsageError

Float64 = NDArray[np.float64]
RIDERS: Final = ("noise", "zero", "copy", "last")
_POISON: Final = -2.0
_LEAST: Final = -0.5
"""A model does not get worse than this progress: the loss is then its start and as much again above its floor."""
_EFFORTS: Final = np.array([action.effort for action in Action])


@dataclass(frozen=True, eq=False)
class Curve:
    """How the loss on a slice s falls with the progress x_s there.

        L_s = floor_s + (start_s − floor_s) / (1 + x_s)
        Δx_s = breadth · rate · Σ_k p_k effort_k^power · quality_k · transfer[s, domain of k]

    in a round of members k with weights p_k; breadth = (1 / Σ p_k²)^γ is what averaging over more of them is worth,
    rate the schedule's part of the peak.
    """

    start: Float64
    floor: Float64
    transfer: Float64
    power: float
    breadth: float
    rounds: int
    """Rounds of the runs that it was fitted to: its progress is spread over as many as a market has."""

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "Curve":
        """Parse plain data; raises ConfigError."""
        try:
            start, floor, transfer = (np.asarray(data[name], np.float64) for name in ("start", "floor", "transfer"))
            curve = cls(start, floor, transfer, float(data["power"]), float(data["breadth"]), int(data["rounds"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"malformed learning curve: {error}") from error
        slices = len(curve.start)
        if curve.floor.shape != (slices,) or curve.transfer.shape != (slices, slices):
            raise ConfigError(f"learning curve of {slices} slices has a transfer of shape {curve.transfer.shape}")
        return curve

    def rate(self, number: int, rounds: int) -> float:
        """The learning rate of a round over its peak: a cosine down to zero at the end of the run."""
        return 0.5 * (1 + math.cos(math.pi * (number - 0.5) / rounds))

    def loss(self, progress: Float64) -> Float64:
        """The loss on every slice."""
        found: Float64 = self.floor + (self.start - self.floor) / (1 + np.maximum(progress, _LEAST))
        return found

    def gains(self, weights: Float64, efforts: Float64, quality: Float64, domains: NDArray[np.int64]) -> Float64:
        """Everybody's part of Δx at a rate of one: shape (slices, members)."""
        square = float(np.sum(weights**2))
        breadth = (1 / square) ** self.breadth if square > 0 else 0.0
        found: Float64 = breadth * weights * efforts**self.power * quality * self.transfer[:, domains]
        return found


@dataclass(frozen=True)
class Scenario:
    """`conf/agents/market.toml`, and a learning curve."""

    settings: Mapping[str, Any]
    curve: Curve

    @classmethod
    def read(cls, path: Path, curve: Curve) -> "Scenario":
        """From a file; raises ConfigError when it is none."""
        try:
            return cls(tomllib.loads(path.read_text(encoding="utf-8")), curve)
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"market {path}: {error}") from error

    @property
    def learning(self) -> Learning:
        """The agents' schedules."""
        return Learning(**self.settings["learning"])


@dataclass(frozen=True, eq=False)
class Outcome:
    """A round by member: who took part at which effort, credit and training loss in nats, cost, income, seconds.

    `losses` are those on the validation slices after it.
    """

    actions: NDArray[np.int64]
    credit: Float64
    costs: Float64
    incomes: Float64
    losses: Float64
    seconds: Float64
    training: Float64


@dataclass(frozen=True, eq=False)
class Effect:
    """What a round did: credit and training loss by member, and the loss on every slice after it."""

    credit: Float64
    training: Float64
    losses: Float64


class Market:
    """One trace of a scenario: its organisations, and the run so far."""

    def __init__(self, scenario: Scenario, members: int, trace: int) -> None:
        self.scenario, self.members = scenario, members
        self.run: Mapping[str, Any] = scenario.settings["run"]
        self.rounds: int = self.run["rounds"]
        self._draws = np.random.default_rng([members, trace])
        self._found()
        self.number = 1
        self.progress = np.zeros(len(scenario.curve.start))
        self.spent = np.zeros(members)

    def _found(self) -> None:
        """Draw the organisations, when they are there and what they pay."""
        settings, draws, members = self.scenario.settings["organisations"], self._draws, self.members
        slices = len(self.scenario.curve.start)
        self.domains = draws.permutation(np.arange(members) % slices)
        self.examples = np.ceil(_lognormal(draws, settings["examples"], members))
        self.quality = _uniform(draws, settings["quality"], members)
        self.kinds = self._kinds(settings)
        self.step_prices = _lognormal(draws, settings["step_price"], members)
        self.step_prices[np.isin(self.kinds, RIDERS)] = 0.0
        self.traffic_prices = _lognormal(draws, settings["traffic_price"], members)
        self.step_seconds = _lognormal(draws, settings["step_seconds"], members)
        self.traffic_seconds = _lognormal(draws, settings["traffic_seconds"], members)
        full = self.run["steps"] * self.step_prices + self.run["traffic"] * self.traffic_prices
        self.budgets = _uniform(draws, settings["budget"], members) * full * self.rounds
        self.available = self._availability()
        shift = self.scenario.settings["shift"]
        self._shifted = draws.random(members) < shift["organisations"]

    def _kinds(self, settings: Mapping[str, Any]) -> NDArray[np.str_]:
        """Honest, a kind of free-rider, or saboteur, by member."""
        kinds = np.full(self.members, "honest", dtype="<U8")
        riders, saboteurs = (round(settings[name] * self.members) for name in ("free_riders", "saboteurs"))
        places = self._draws.permutation(self.members)
        for turn, place in enumerate(places[:riders]):
            kinds[place] = RIDERS[turn % len(RIDERS)]
        kinds[places[riders : riders + saboteurs]] = "saboteur"
        return kinds

    def _availability(self) -> NDArray[np.bool_]:
        """Who is there in each round: shape (rounds + 1, members)."""
        chain, draws = self.scenario.settings["availability"], self._draws
        there = np.ones((self.rounds + 1, self.members), bool)
        for number in range(1, self.rounds + 1):
            moved = draws.random(self.members)
            there[number] = np.where(there[number - 1], moved >= chain["leaves"], moved < chain["returns"])
        return there

    @property
    def over(self) -> bool:
        """Whether every round was run."""
        return self.number > self.rounds

    @property
    def loss(self) -> float:
        """The mean loss over the slices now."""
        return float(self.scenario.curve.loss(self.progress).mean())

    def prices(self, member: int, number: int) -> Prices:
        """What a member pays in a round."""
        return Prices(float(self._step_prices(number)[member]), float(self.traffic_prices[member]))

    def terms(self, member: int) -> Terms:
        """What a member's agent is told of the run."""
        run = self.run
        budget = float(self.budgets[member])
        return Terms(float(self.members), self.members, self.rounds, run["steps"], run["traffic"], budget)

    def costs(self, actions: NDArray[np.int64], number: int) -> Float64:
        """What everybody's actions cost in a round."""
        traffic = np.where(actions > 0, self.run["traffic"] * self.traffic_prices, 0.0)
        return self._steps(actions) * self._step_prices(number) + traffic

    def preview(self, actions: NDArray[np.int64]) -> float:
        """The welfare that the next round would have: what the fall of the loss is worth to all, less all costs."""
        actions = self._possible(actions)
        after = self.progress + self._gains(actions).sum(axis=1)
        fall = self.loss - float(self.scenario.curve.loss(after).mean())
        return float(self.run["value"]) * self.members * fall - float(self.costs(actions, self.number).sum())

    def step(self, actions: Sequence[int] | NDArray[np.int64]) -> Outcome:
        """Run the next round; whoever is not there or cannot pay abstains. Raises UsageError when the run is over."""
        if self.over:
            raise UsageError(f"the market's {self.rounds} rounds are over")
        took = self._possible(np.asarray(actions, np.int64))
        costs = self.costs(took, self.number)
        self.spent += costs
        done = self.effect(took)
        paid = self._paid(took, done.credit)
        waited = np.where(took > 0, self.run["traffic"] * self.traffic_seconds, 0.0)
        seconds = self._steps(took) * self.step_seconds + waited
        self.number += 1
        return Outcome(took, done.credit, costs, paid, done.losses, seconds, done.training)

    def effect(self, took: NDArray[np.int64]) -> Effect:
        """Train a round of those who take part. Bad data show as a higher training loss."""
        gains = self._gains(took)
        before = self.scenario.curve.loss(self.progress)
        self.progress = np.maximum(self.progress + gains.sum(axis=1), _LEAST)
        losses = self.scenario.curve.loss(self.progress)
        training = losses[self.domains] + (1 - self.quality)
        return Effect(self._credit(took, gains, before - losses), training, losses)

    def _possible(self, actions: NDArray[np.int64]) -> NDArray[np.int64]:
        able = self.available[self.number] & (self.spent + self.costs(actions, self.number) <= self.budgets)
        return np.where(able, actions, 0)

    def _steps(self, actions: NDArray[np.int64]) -> Float64:
        """The local steps of everybody's action."""
        steps = np.maximum(1, np.round(_EFFORTS[actions] * self.run["steps"]))
        return np.where(actions > 0, steps, 0.0)

    def _step_prices(self, number: int) -> Float64:
        shift = self.scenario.settings["shift"]
        late = number > shift["at"] * self.rounds
        return np.where(self._shifted & late, shift["factor"], 1.0) * self.step_prices

    def _gains(self, actions: NDArray[np.int64]) -> Float64:
        """Everybody's part of Δx: shape (slices, members). Noise, nothing and what is public add nothing."""
        weights = np.where(actions > 0, self.examples, 0.0)
        weights = weights / weights.sum() if weights.any() else weights
        quality = np.where(self.kinds == "honest", self.quality, 0.0)
        quality = np.where(self.kinds == "saboteur", _POISON * self.quality, quality)
        domains, efforts = self.domains.copy(), self._steps(actions) / self.run["steps"]
        for rider, victim in self._copies(actions):
            quality[rider], domains[rider], efforts[rider] = quality[victim], domains[victim], efforts[victim]
        curve = self.scenario.curve
        rate = curve.rate(self.number, self.rounds) * curve.rounds / self.rounds
        return rate * curve.gains(weights, efforts, quality, domains)

    def _copies(self, actions: NDArray[np.int64]) -> list[tuple[int, int]]:
        """(who copies, whom) among those who take part: the first honest of all."""
        honest = np.flatnonzero((self.kinds == "honest") & (actions > 0))
        riders = np.flatnonzero((self.kinds == "copy") & (actions > 0))
        return [(int(rider), int(honest[0])) for rider in riders] if len(honest) else []

    def _credit(self, actions: NDArray[np.int64], gains: Float64, falls: Float64) -> Float64:
        """Aumann–Shapley of a loss that depends on Σ Δx alone, as `agents.credit` has it, and a little noise."""
        totals = gains.sum(axis=1, keepdims=True)
        shares = np.divide(gains, totals, out=np.zeros_like(gains), where=np.abs(totals) > 1e-12)
        credit: Float64 = (shares * falls[:, None]).mean(axis=0)
        groups: dict[int, list[int]] = {}
        for rider, victim in self._copies(actions):
            groups.setdefault(victim, [victim]).append(rider)
        for group in groups.values():
            credit[group] = np.where(credit[group] > 0, credit[group] / len(group), credit[group])
        honest = (self.kinds == "honest") & (actions > 0)
        scale = self.scenario.settings["credit"]["noise"] * abs(float(credit[honest].mean())) if honest.any() else 0.0
        exact = (actions == 0) | (self.kinds == "zero") | (self.kinds == "last")
        return credit + np.where(exact, 0.0, scale * self._draws.normal(size=self.members))

    def _paid(self, actions: NDArray[np.int64], credit: Float64) -> Float64:
        took = {Address(str(member)): float(credit[member]) for member in np.flatnonzero(actions)}
        paid = incomes(took, float(self.members))
        return np.array([paid.get(Address(str(member)), 0.0) for member in range(self.members)])


class MarketEnv(ParallelEnv):  # type: ignore[misc] # PettingZoo has no types
    """Organisations of a federation that decide, each for itself, how much to take part in its rounds.

    ## Description
    A federation trains for a fixed number of rounds. In each, every organisation abstains or takes part at low, medium
    or full effort; it pays for its local steps and its traffic, and is paid from a common pool in proportion to what
    its update did to the loss on a validation set that nobody owns. Some are free-riders or saboteurs; some are away
    for a while; some prices rise in mid-run. An organisation that is away or cannot pay abstains whatever it bids.

    ## Action Space
    `Discrete(4)` for each organisation: 0 abstain, 1 low (a quarter of the local steps, half the adapter's columns),
    2 medium (half the steps), 3 full.

    ## Observation Space
    `MultiDiscrete([5, 3, 3, 3, 3])`: the classes of own gain, own cost, budget left, phase and staleness, as in
    `agents.q_learning`. As in a federation, what is observed when a round is bid for knows the payments of all rounds
    but the last.

    ## Rewards
    The payoff, income − cost in equal shares of a round's pool, of the round before the one just run (a round is paid
    one round late); after the last round, of the last two together.

    ## Starting State
    Nobody has taken part; gain is unknown, budgets are full. Which organisations there are follows from the trace:
    that of the constructor, or `seed` in `reset`.

    ## Episode End
    All are terminated together after the scenario's rounds. Nothing is truncated.

    ## Arguments
    `scenario`: a `Scenario`; `members`: how many organisations; `trace`: the number that everything is drawn from.

    ## Version History
    v0: the first.
    """

    metadata: ClassVar[dict[str, Any]] = {"name": "foedus_market_v0", "render_modes": []}

    def __init__(self, scenario: Scenario, members: int, trace: int = 1) -> None:
        self.scenario, self.members, self.trace = scenario, members, trace
        self.render_mode = None
        self.possible_agents = [f"organisation {member}" for member in range(members)]
        self.agents: list[str] = []
        self._observed = {name: MultiDiscrete(list(SHAPE)) for name in self.possible_agents}
        self._acted = {name: Discrete(len(Action)) for name in self.possible_agents}

    def observation_space(self, agent: str) -> MultiDiscrete:
        """See Observation Space above."""
        return self._observed[agent]

    def action_space(self, agent: str) -> Discrete:
        """See Action Space above."""
        return self._acted[agent]

    def reset(
        self,
        seed: int | None = None,
        options: dict[str, Any] | None = None,  # noqa: ARG002 - PettingZoo's signature
    ) -> tuple[dict[str, NDArray[np.int64]], dict[str, dict[str, Any]]]:
        """Begin the trace again, or that of the number `seed`."""
        self.trace = self.trace if seed is None else seed
        self.market = Market(self.scenario, self.members, self.trace)
        self.agents = list(self.possible_agents)
        self._books = [Agent(self.market.terms(k), 0, QTable(Learning()), frozen=True) for k in range(self.members)]
        self._unpaid: Outcome | None = None
        return self._observations(), {name: {} for name in self.agents}

    def step(
        self, actions: dict[str, int]
    ) -> tuple[
        dict[str, NDArray[np.int64]], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]
    ]:
        """Run a round."""
        names, number = list(self.agents), self.market.number
        chosen = np.array([int(actions.get(name, 0)) for name in names])
        outcome = self.market.step(chosen)
        self._book(number, outcome)
        due = np.zeros(self.members) if self._unpaid is None else self._unpaid.incomes - self._unpaid.costs
        self._unpaid, over = outcome, self.market.over
        rewards = due + (outcome.incomes - outcome.costs if over else 0.0)
        observations = self._observations()
        infos = {n: {"loss": self.market.loss, "took part": bool(outcome.actions[k])} for k, n in enumerate(names)}
        if over:
            self.agents = []
        ended = dict.fromkeys(names, over)
        return observations, dict(zip(names, rewards.tolist(), strict=True)), ended, dict.fromkeys(names, False), infos

    def _book(self, number: int, outcome: Outcome) -> None:
        """Tell every agent what it did in this round, and what the round before paid."""
        for member, book in enumerate(self._books):
            prices = self.market.prices(member, number)
            book.take(number, 0, Action(int(outcome.actions[member])))
            book.perform(number, prices)
            if self._unpaid is not None:
                book.settle(number - 1, float(self._unpaid.incomes[member]))

    def _observations(self) -> dict[str, NDArray[np.int64]]:
        number = min(self.market.number, self.market.rounds)
        found = {}
        for member, name in enumerate(self.possible_agents):
            parts = parts_of(self._books[member].state(number, self.market.prices(member, number)))
            found[name] = np.array([parts[part] for part in CLASSES], dtype=np.int64)
        return found


def _lognormal(draws: np.random.Generator, settings: Sequence[float], size: int) -> Float64:
    median, sigma = settings
    return draws.lognormal(math.log(median), sigma, size)


def _uniform(draws: np.random.Generator, settings: Sequence[float], size: int) -> Float64:
    low, high = settings
    return draws.uniform(low, high, size)
