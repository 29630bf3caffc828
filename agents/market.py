"""A market of organisations that decide, round by round, how much to take part: policies and agents are tried on it.

Nothing is trained here. The effect of a round on the loss on every domain of the shared validation set is a curve that
a benchmark fits to real federated runs (`LearningCurve`); the organisations, their prices and their absences are drawn
from `conf/agents/market.toml` and the number of a trace. The same market as a PettingZoo environment is
`benchmarks/agents/environment.py`.
"""

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from agents.agent import Prices, Terms
from agents.credit import incomes
from agents.q_function import Action, Learning
from core.canonical import Address
from core.errors import ConfigError, UsageError

Float64 = NDArray[np.float64]
FREE_RIDERS: Final = ("noise", "zero", "copy", "last")
_POISON: Final = -2.0
_LEAST: Final = -0.5
"""A model does not get worse than this progress: the loss is then its start and as much again above its floor."""
_EFFORTS: Final = np.array([action.effort for action in Action])


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """How the loss on a domain d falls with the progress x_d there.

        L_d = floor_d + (start_d − floor_d) / (1 + x_d)
        Δx_d = breadth · rate · Σ_k p_k effort_k^power · quality_k · transfer[d, domain of k]

    in a round of members k with weights p_k; breadth = (1 / Σ p_k²)^γ is the worth of averaging over more of them,
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
    def from_data(cls, data: Mapping[str, Any]) -> "LearningCurve":
        """Parse plain data; raises ConfigError."""
        try:
            start, floor, transfer = (np.asarray(data[name], np.float64) for name in ("start", "floor", "transfer"))
            curve = cls(start, floor, transfer, float(data["power"]), float(data["breadth"]), int(data["rounds"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"malformed learning curve: {error}") from error
        domains = len(curve.start)
        if curve.floor.shape != (domains,) or curve.transfer.shape != (domains, domains):
            shapes = f"floor {curve.floor.shape} and transfer {curve.transfer.shape}"
            raise ConfigError(
                f"learning curve of {domains} domains: expected one row and column for each, got {shapes}"
            )
        return curve

    def rate(self, number: int, rounds: int) -> float:
        """The learning rate of a round over its peak: a cosine down to zero at the end of the run."""
        return 0.5 * (1 + math.cos(math.pi * (number - 0.5) / rounds))

    def loss(self, progress: Float64) -> Float64:
        """The loss on every domain."""
        loss: Float64 = self.floor + (self.start - self.floor) / (1 + np.maximum(progress, _LEAST))
        return loss

    def gains(self, weights: Float64, efforts: Float64, quality: Float64, own_domain: NDArray[np.int64]) -> Float64:
        """Every member's part of Δx at a rate of one: shape (domains, members)."""
        square = float(np.sum(weights**2))
        breadth = (1 / square) ** self.breadth if square > 0 else 0.0
        gains: Float64 = breadth * weights * efforts**self.power * quality * self.transfer[:, own_domain]
        return gains


@dataclass(frozen=True)
class Scenario:
    """`conf/agents/market.toml`, and a learning curve."""

    settings: Mapping[str, Any]
    curve: LearningCurve

    @classmethod
    def read(cls, path: Path, curve: LearningCurve) -> "Scenario":
        """Read the settings from a TOML file; raises ConfigError."""
        try:
            return cls(tomllib.loads(path.read_text(encoding="utf-8")), curve)
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"market {path}: {error}") from error

    @property
    def learning(self) -> Learning:
        """The agents' schedules."""
        return Learning(**self.settings["learning"])


@dataclass(frozen=True, eq=False)
class MarketRound:
    """A round by member: actions, credit and training loss in nats, costs, incomes, seconds.

    `losses` are those on the validation domains after it.
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
    """The effect of a round: credit and training loss by member, and the loss on every domain after it."""

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
        self.draw_organisations()
        self.number = 1
        self.progress = np.zeros(len(scenario.curve.start))
        self.spent = np.zeros(members)

    def draw_organisations(self) -> None:
        """Draw the organisations, their presence and their prices."""
        # A trace's number stands for these draws in this order: another order makes another trace.
        settings, draws, members = self.scenario.settings["organisations"], self._draws, self.members
        self.own_domain = draws.permutation(np.arange(members) % len(self.scenario.curve.start))
        self.examples = np.ceil(_lognormal(draws, settings["examples"], members))
        self.quality = _uniform(draws, settings["quality"], members)
        self.kinds = self.draw_kinds(settings)
        self.step_prices = _lognormal(draws, settings["step_price"], members)
        self.step_prices[np.isin(self.kinds, FREE_RIDERS)] = 0.0
        self.traffic_prices = _lognormal(draws, settings["traffic_price"], members)
        self.step_seconds = _lognormal(draws, settings["step_seconds"], members)
        self.traffic_seconds = _lognormal(draws, settings["traffic_seconds"], members)
        full = self.run["steps"] * self.step_prices + self.run["traffic"] * self.traffic_prices
        self.budgets = _uniform(draws, settings["budget"], members) * full * self.rounds
        chain = self.scenario.settings["availability"]
        self.available = np.ones((self.rounds + 1, members), bool)
        for number in range(1, self.rounds + 1):
            moved = draws.random(members)
            present = self.available[number - 1]
            self.available[number] = np.where(present, moved >= chain["leaves"], moved < chain["returns"])
        self._shifted = draws.random(members) < self.scenario.settings["shift"]["organisations"]

    def draw_kinds(self, settings: Mapping[str, Any]) -> NDArray[np.str_]:
        """Honest, a kind of free-rider, or saboteur, by member."""
        kinds = np.full(self.members, "honest", dtype="<U8")
        free_riders, saboteurs = (round(settings[name] * self.members) for name in ("free_riders", "saboteurs"))
        members = self._draws.permutation(self.members)
        for turn, member in enumerate(members[:free_riders]):
            kinds[member] = FREE_RIDERS[turn % len(FREE_RIDERS)]
        kinds[members[free_riders : free_riders + saboteurs]] = "saboteur"
        return kinds

    @property
    def over(self) -> bool:
        """Whether every round was run."""
        return self.number > self.rounds

    @property
    def loss(self) -> float:
        """The mean loss over the domains now."""
        return float(self.scenario.curve.loss(self.progress).mean())

    def prices(self, member: int, number: int) -> Prices:
        """A member's prices in a round."""
        return Prices(float(self._step_prices(number)[member]), float(self.traffic_prices[member]))

    def terms(self, member: int) -> Terms:
        """The run's terms for a member's agent."""
        run = self.run
        budget = float(self.budgets[member])
        return Terms(float(self.members), self.members, self.rounds, run["steps"], run["traffic"], budget)

    def costs(self, actions: NDArray[np.int64], number: int) -> Float64:
        """The cost of every member's action in a round."""
        traffic = np.where(actions > 0, self.run["traffic"] * self.traffic_prices, 0.0)
        return self._steps(actions) * self._step_prices(number) + traffic

    def preview(self, actions: NDArray[np.int64]) -> float:
        """The welfare of the next round: the worth of the fall of the loss to all members, less all costs."""
        actions = self._possible(actions)
        after = self.progress + self._gains(actions).sum(axis=1)
        fall = self.loss - float(self.scenario.curve.loss(after).mean())
        return float(self.run["value"]) * self.members * fall - float(self.costs(actions, self.number).sum())

    def step(self, actions: Sequence[int] | NDArray[np.int64]) -> MarketRound:
        """Run the next round; a member that is away or cannot pay abstains. Raises UsageError when the run is over."""
        if self.over:
            raise UsageError(f"expected a round of {self.rounds}, got one more: the market's run is over")
        took = self._possible(np.asarray(actions, np.int64))
        costs = self.costs(took, self.number)
        self.spent += costs
        done = self.effect(took)
        credit = {Address(str(member)): float(done.credit[member]) for member in np.flatnonzero(took)}
        paid = incomes(credit, float(self.members))
        waited = np.where(took > 0, self.run["traffic"] * self.traffic_seconds, 0.0)
        seconds = self._steps(took) * self.step_seconds + waited
        self.number += 1
        received = np.array([paid.get(Address(str(member)), 0.0) for member in range(self.members)])
        return MarketRound(took, done.credit, costs, received, done.losses, seconds, done.training)

    def effect(self, took: NDArray[np.int64]) -> Effect:
        """Train a round of the members that take part. Bad data show as a higher training loss."""
        gains = self._gains(took)
        before = self.scenario.curve.loss(self.progress)
        self.progress = np.maximum(self.progress + gains.sum(axis=1), _LEAST)
        losses = self.scenario.curve.loss(self.progress)
        training = losses[self.own_domain] + (1 - self.quality)
        return Effect(self._credit(took, gains, before - losses), training, losses)

    def _possible(self, actions: NDArray[np.int64]) -> NDArray[np.int64]:
        able = self.available[self.number] & (self.spent + self.costs(actions, self.number) <= self.budgets)
        return np.where(able, actions, 0)

    def _steps(self, actions: NDArray[np.int64]) -> Float64:
        """The local steps of every member's action."""
        steps = np.maximum(1, np.round(_EFFORTS[actions] * self.run["steps"]))
        return np.where(actions > 0, steps, 0.0)

    def _step_prices(self, number: int) -> Float64:
        shift = self.scenario.settings["shift"]
        late = number > shift["at"] * self.rounds
        return np.where(self._shifted & late, shift["factor"], 1.0) * self.step_prices

    def _gains(self, actions: NDArray[np.int64]) -> Float64:
        """Every member's part of Δx: shape (domains, members). Noise, zeros and public updates add nothing."""
        weights = np.where(actions > 0, self.examples, 0.0)
        weights = weights / weights.sum() if weights.any() else weights
        quality = np.where(self.kinds == "honest", self.quality, 0.0)
        quality = np.where(self.kinds == "saboteur", _POISON * self.quality, quality)
        own_domain, efforts = self.own_domain.copy(), self._steps(actions) / self.run["steps"]
        for copier, victim in self._copies(actions):
            quality[copier], own_domain[copier], efforts[copier] = quality[victim], own_domain[victim], efforts[victim]
        curve = self.scenario.curve
        rate = curve.rate(self.number, self.rounds) * curve.rounds / self.rounds
        return rate * curve.gains(weights, efforts, quality, own_domain)

    def _copies(self, actions: NDArray[np.int64]) -> list[tuple[int, int]]:
        """(copier, copied) among the members that take part: the first honest one is copied."""
        honest = np.flatnonzero((self.kinds == "honest") & (actions > 0))
        copiers = np.flatnonzero((self.kinds == "copy") & (actions > 0))
        return [(int(copier), int(honest[0])) for copier in copiers] if len(honest) else []

    def _credit(self, actions: NDArray[np.int64], gains: Float64, falls: Float64) -> Float64:
        """Aumann–Shapley of a loss that depends on Σ Δx alone, as `agents.credit` has it, and a little noise."""
        totals = gains.sum(axis=1, keepdims=True)
        shares = np.divide(gains, totals, out=np.zeros_like(gains), where=np.abs(totals) > 1e-12)
        credit: Float64 = (shares * falls[:, None]).mean(axis=0)
        groups: dict[int, list[int]] = {}
        for copier, victim in self._copies(actions):
            groups.setdefault(victim, [victim]).append(copier)
        for group in groups.values():
            credit[group] = np.where(credit[group] > 0, credit[group] / len(group), credit[group])
        honest = (self.kinds == "honest") & (actions > 0)
        scale = self.scenario.settings["credit"]["noise"] * abs(float(credit[honest].mean())) if honest.any() else 0.0
        # An absent update and a public one are credited without any gradient, so nothing there is noisy.
        exact = (actions == 0) | (self.kinds == "zero") | (self.kinds == "last")
        return credit + np.where(exact, 0.0, scale * self._draws.normal(size=self.members))


def _lognormal(draws: np.random.Generator, settings: Sequence[float], size: int) -> Float64:
    median, sigma = settings
    return draws.lognormal(math.log(median), sigma, size)


def _uniform(draws: np.random.Generator, settings: Sequence[float], size: int) -> Float64:
    low, high = settings
    return draws.uniform(low, high, size)
