"""An organisation's agent: it bids for rounds, spends its budget on them, and learns from their payments.

A round is bid for before the one before it is paid (the bid for t + 1 is made at message t, when the credits up to
t − 1 are known): a decision waits in the agent until its reward and the next decision are there.

It bids for the round of the highest value (agents/q_function.py) that it can afford, and risks no more than its first
round: its costs never exceed what it has earned by more than the cost of that round. Nothing is known of the first
round's payment when the second is bid for, so it takes part in one of the two: half of the agents, by their seeds'
parity, begin with the second, else a federation's second round would be empty.
"""

import math
from dataclasses import asdict, dataclass, field
from typing import Final, Self

from agents.q_function import Action, QFunction, is_number
from core.canonical import from_json, to_json
from core.errors import ConfigError, FormatError, UsageError
from core.parsing import parsed

_SAVED: Final = ("seed", "decisions", "spent", "earned", "risk")


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
        if not self.pool:
            raise ConfigError("pool: expected more than 0, got 0")
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
    action: Action
    value: float
    """The highest value that an action had, in equal shares."""
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
    values: QFunction
    decisions: int = 0
    spent: float = 0.0
    earned: float = 0.0
    risk: float | None = None
    """The most by which its costs may exceed its earnings: the cost of its first round; None before that."""
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
        affordable = self._affordable(prices)
        values = {
            action: self.values.value(action, prices.cost(action, self.terms) / self.terms.share)
            for action in Action
            if action is Action.ABSTAIN or prices.cost(action, self.terms) <= affordable
        }
        best = max(values, key=lambda action: (values[action], -action))
        self.take(number, Action.ABSTAIN if number == 1 and self.seed % 2 else best, values[best])
        return self.waiting[-1].action

    def take(self, number: int, action: Action, value: float = 0.0) -> None:
        """Decide for a round. Raises UsageError when a later one is decided already."""
        if self.waiting and number <= self.waiting[-1].round:
            raise UsageError(f"round {number} is over: {self.waiting[-1].round} is already decided")
        self.decisions += 1
        self.waiting.append(Decision(number, action, value))
        self._learn()

    def due(self, number: int, prices: Prices, drafted: bool = False) -> Action:
        """The action to train in a round that was bid for; to abstain where prices rose above what it can afford.

        An agent that abstained and is `drafted`, since too few bid, takes part a little where its budget covers that.
        """
        decision = self.decision(number)
        if decision is None:
            return Action.ABSTAIN
        action, affordable = decision.action, self._affordable(prices, decision)
        if drafted and action is Action.ABSTAIN:
            action, affordable = Action.LOW, self.left
        # A round that is trained again after a crash has its cost already: only the difference is spent.
        return action if prices.cost(action, self.terms) <= affordable + decision.cost else Action.ABSTAIN

    def perform(self, number: int, prices: Prices, drafted: bool = False) -> float | None:
        """Spend the cost of a round that is `due`; None when nothing is."""
        decision, action = self.decision(number), self.due(number, prices, drafted)
        if decision is None or action is Action.ABSTAIN:
            return None
        cost = prices.cost(action, self.terms)
        if self.risk is None and action is decision.action:  # a draft is another's choice
            self.risk = cost
        decision.action = action
        self.spent += cost - decision.cost
        decision.cost = cost
        return cost

    def settle(self, number: int, income: float) -> None:
        """Book a round's payment; told again it changes nothing. Raises ConfigError for a negative amount."""
        _check_amount("income", income)
        decision = self.decision(number)
        if decision is None or decision.income is not None:
            return
        decision.income = income
        self.earned += income
        self._learn()

    def _affordable(self, prices: Prices, besides: Decision | None = None) -> float:
        """What a round may cost, besides those that are bid for and not trained yet."""
        reserved = sum(
            prices.cost(d.action, self.terms)
            for d in self.waiting
            if d is not besides and d.income is None and not d.cost
        )
        # Until its first round is trained, the bid for it is all that an agent risks.
        risk = self.risk if self.risk is not None else reserved or math.inf
        return min(self.terms.budget, risk + self.earned) - self.spent - reserved

    def _learn(self) -> None:
        """Learn from every decision whose income and successor are known, and let go of it."""
        while len(self.waiting) > 1:
            first, second = self.waiting[:2]
            if first.income is None:
                return
            action = first.action if first.cost else Action.ABSTAIN  # it may have been away
            self.values.learn(action, first.income / self.terms.share, second.value)
            self.waiting.pop(0)

    def to_bytes(self) -> bytes:
        """Canonical JSON of everything but the terms, which the run fixes."""
        plain = {name: getattr(self, name) for name in _SAVED}
        return to_json(plain | {"waiting": [asdict(d) for d in self.waiting], "values": self.values.to_data()})

    @classmethod
    def from_bytes(cls, data: bytes, terms: Terms) -> Self:
        """Parse a saved agent; raises FormatError when it is malformed, or of another version."""
        saved = from_json(data)
        if not isinstance(saved, dict):
            raise FormatError("malformed agent: not an object")
        try:
            values = QFunction.from_data(saved["values"])
            waiting = [parsed(Decision, d, {"action": Action}) for d in saved["waiting"]]
            plain = {name: saved[name] for name in _SAVED}
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"malformed agent: {error}") from error
        if not (is_number(plain["spent"]) and is_number(plain["earned"])):
            raise FormatError("malformed agent: spent or earned is not a number")
        return cls(terms=terms, values=values, waiting=waiting, **plain)


def _check_amount(name: str, value: float) -> None:
    if not is_number(value) or value < 0:
        raise ConfigError(f"{name}: expected a number of at least 0, got {value!r}")
