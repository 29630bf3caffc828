"""An organisation's agent: it bids for rounds, spends its budget on them, and learns from their payments.

A round is bid for before the one before it is paid (the bid for t + 1 is made at message t, when the credits up to
t − 1 are known): a decision waits in the agent until its reward and the next decision are there. Draws come from a
counter, so an agent that is saved and restored goes on as if nothing had happened.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Final, Self

import numpy as np

from agents.table import Action, QTable, is_number, state_of
from core.canonical import from_json, to_json
from core.errors import ConfigError, FormatError, UsageError

_SAVED: Final = ("seed", "frozen", "draws", "decisions", "spent", "earned", "gain", "taken")


@dataclass(frozen=True)
class Terms:
    """A run's offer, and the organisation's budget for it. Raises ConfigError for a value out of its range.

    `pool` is a round's payment to all, `members` among how many, `rounds` how often; `steps` are the local steps of a
    full round, `traffic` the MiB that a round sends and receives, `budget` is for the whole run, in units of the pool.
    """

    pool: float
    members: int
    rounds: int
    steps: int
    traffic: float
    budget: float

    def __post_init__(self) -> None:
        """Check every value."""
        for name in ("pool", "traffic", "budget"):
            _check_amount(name, getattr(self, name))
        for name in ("members", "rounds", "steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: expected at least 1, got {getattr(self, name)}")

    @property
    def share(self) -> float:
        """An equal share of a round's pool."""
        return self.pool / self.members


@dataclass(frozen=True)
class Prices:
    """An organisation's prices of one local step and of one MiB. Raises ConfigError for a negative price."""

    step: float
    traffic: float

    def __post_init__(self) -> None:
        """Check both."""
        _check_amount("price of a step", self.step)
        _check_amount("price of traffic", self.traffic)

    def cost(self, action: Action, terms: Terms) -> float:
        """The cost of a round."""
        if action is Action.ABSTAIN:
            return 0.0
        return self.step * max(1, round(action.effort * terms.steps)) + self.traffic * terms.traffic


@dataclass
class Decision:
    """A decision for a round, and its outcome."""

    round: int
    state: int
    action: Action
    cost: float = 0.0
    """Spent on it; 0 until it is trained."""
    income: float | None = None
    """None until it is known."""


@dataclass
class Agent:
    """One organisation's agent in one run.

    A round goes: `decide` (a bid), `perform` (the cost, when it trains), `settle` (the income, when it is told).
    """

    terms: Terms
    seed: int
    table: QTable
    frozen: bool = False
    """Does not explore or learn."""
    draws: int = 0
    decisions: int = 0
    spent: float = 0.0
    earned: float = 0.0
    gain: float | None = None
    """Income over cost, a moving mean over the rounds it took part in."""
    taken: int = 0
    """The last round it took part in."""
    waiting: list[Decision] = field(default_factory=list)
    """Decisions that were not learnt from yet, in order of round."""

    @property
    def left(self) -> float:
        """The budget not spent yet."""
        return self.terms.budget - self.spent

    def decision(self, number: int) -> Decision | None:
        """The decision for a round; None before there is one, and once it was learnt from."""
        return next((decision for decision in self.waiting if decision.round == number), None)

    def decide(self, number: int, prices: Prices) -> Action:
        """Decide on the bid for a round; asked again the answer is the same.

        Raises UsageError when a later round is decided already.
        """
        if known := self.decision(number):
            return known.action
        state, offered = self.state(number, prices), self.offered(prices)
        if not self.frozen and self._draw() < self.table.learning.epsilon(self.decisions):
            action = offered[int(self._draw() * len(offered))]
        else:
            action = self.table[state].best(offered)
        self.take(number, state, action)
        return action

    def offered(self, prices: Prices) -> list[Action]:
        """The actions that the budget covers, besides the bids for rounds that are still to be trained."""
        reserved = sum(prices.cost(d.action, self.terms) for d in self.waiting if d.income is None and not d.cost)
        return [a for a in Action if a is Action.ABSTAIN or prices.cost(a, self.terms) <= self.left - reserved]

    def take(self, number: int, state: int, action: Action) -> None:
        """Decide for a round. Raises UsageError when a later one is decided already."""
        if self.waiting and number <= self.waiting[-1].round:
            raise UsageError(f"round {number} is over: {self.waiting[-1].round} is already decided")
        self.decisions += 1  # ε falls with decisions, not with rounds: an organisation that is away explores no less
        self.waiting.append(Decision(number, state, action))
        self._learn()

    def perform(self, number: int, prices: Prices, drafted: bool = False) -> float | None:
        """Spend the cost of a round that was bid for; None when it abstains, or prices rose above the budget left.

        An agent that abstained and is `drafted`, since too few bid, takes part a little.
        """
        decision = self.decision(number)
        if decision is None:
            return None
        # A round that is trained again after a crash has its cost already: only the difference is spent.
        action = Action.LOW if drafted and decision.action is Action.ABSTAIN else decision.action
        cost = prices.cost(action, self.terms)
        if action is Action.ABSTAIN or cost > self.left + decision.cost:
            return None
        decision.action = action
        self.spent += cost - decision.cost
        decision.cost, self.taken = cost, number
        return cost

    def settle(self, number: int, income: float) -> None:
        """Book a round's payment; told again it changes nothing. Raises ConfigError for a negative amount."""
        _check_amount("income", income)
        decision = self.decision(number)
        if decision is None or decision.income is not None:
            return
        decision.income = income
        self.earned += income
        if decision.cost:
            paid = income / decision.cost
            self.gain = paid if self.gain is None else (self.gain + paid) / 2
        self._learn()

    def state(self, number: int, prices: Prices) -> int:
        """The state in which the bid for a round is made."""
        full = prices.cost(Action.FULL, self.terms)
        rest = full * (self.terms.rounds - number + 1)
        return state_of(
            {
                "gain": 0 if self.gain is None else 1 + _class(self.gain, (1e-9, 1.0, 2.0)),
                "cost": _class(full / self.terms.share if self.terms.share else math.inf, (0.5, 1.5)),
                "budget": _class(self.left / rest if rest > 0 else math.inf, (1 / 3, 1.0)),
                "phase": _class((number - 1) / self.terms.rounds, (0.25, 0.75)),
                "staleness": _class(number - 1 - self.taken, (2, 4)),
            }
        )

    def _learn(self) -> None:
        """Learn from every decision whose income and successor are known, and let go of it."""
        while len(self.waiting) > 1 and self.waiting[0].income is not None:
            first, second = self.waiting[:2]
            if not self.frozen:
                reward = (first.income or 0.0) - first.cost
                self.table.learn(
                    first.state, first.action, reward / (self.terms.share or 1.0), second.state, self._draw()
                )
            self.waiting.pop(0)

    def _draw(self) -> float:
        """A number in [0, 1): the next of this agent's own sequence."""
        source = np.random.PCG64(self.seed)
        source.advance(self.draws)  # a draw takes one step: the counter is all that must be saved
        self.draws += 1
        return float(np.random.Generator(source).random())

    def to_bytes(self) -> bytes:
        """Canonical JSON of everything but the terms, which the run fixes."""
        plain = {name: getattr(self, name) for name in _SAVED}
        return to_json(plain | {"waiting": [asdict(d) for d in self.waiting], "table": self.table.to_data()})

    @classmethod
    def from_bytes(cls, data: bytes, terms: Terms) -> Self:
        """Parse a saved agent; raises FormatError when it is malformed, or its table of another version or shape."""
        parsed = from_json(data)
        if not isinstance(parsed, dict):
            raise FormatError("malformed agent: not an object")
        try:
            table = QTable.from_data(parsed["table"])
            waiting = [Decision(**{**d, "action": Action(d["action"])}) for d in parsed["waiting"]]
            plain = {name: parsed[name] for name in _SAVED}
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"malformed agent: {error}") from error
        if not (is_number(plain["spent"]) and is_number(plain["earned"])):
            raise FormatError("malformed agent: spent or earned is not a number")
        return cls(terms=terms, table=table, waiting=waiting, **plain)


def _class(value: float, bounds: Sequence[float]) -> int:
    """How many of the bounds a value reaches."""
    return sum(value >= bound for bound in bounds)


def _check_amount(name: str, value: float) -> None:
    if not is_number(value) or value < 0:
        raise ConfigError(f"{name}: expected a number of at least 0, got {value!r}")
