r"""An organisation's agent: a Q-table that says how much to take part in the next round, and all that belongs to it.

The state is what an organisation knows of itself, each part in a few classes (405 states):

    gain       what its rounds paid for what they cost: not known yet, nothing, a loss, a profit, twice the cost
    cost       the price of a full round over an equal share of the pool: low, fair, high
    budget     how much of the rest of the run it can still pay for in full: a third, not all, all
    phase      the first quarter of the run, the middle, the last quarter
    staleness  rounds since it last took part: up to one, up to three, more

The reward of a round is its payoff, income − cost, over an equal share of the pool: 0 for abstaining. Learning is
double Q-learning (van Hasselt, 2010, algorithm 1): of two tables one, drawn, moves towards the value that the *other*
gives to the action it likes best itself, Q_a(s, u) += α [r + γ Q_b(s', argmax_u Q_a(s', u)) − Q_a(s, u)]. ε falls with
the decisions made, α with the visits to a cell. To abstain starts at 0, which is what it pays; to take part at an
optimistic value in proportion to its effort. But where the rounds are known to pay less than they cost a state that was
never seen starts at what that makes one expect, (gain − 1) · cost: there is hope in what is unknown alone.

A round is bid for before the one before it is paid (the bid for t + 1 is made at message t, when the credits up to
t − 1 are known): a decision waits in the agent until its reward and the next decision are there. Draws come from a
counter, so an agent that is saved and restored goes on as if nothing had happened.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, Self

from core.canonical import from_json, to_json
from core.errors import ConfigError, FormatError, UsageError
from core.storage.blobs import Folder, write
from core.update import Bid

VERSION: Final = 1
CLASSES: Final[Mapping[str, tuple[str, ...]]] = {
    "gain": ("unknown", "nothing", "loss", "profit", "twice"),
    "cost": ("low", "fair", "high"),
    "budget": ("a third", "not all", "all"),
    "phase": ("start", "middle", "end"),
    "staleness": ("fresh", "some", "stale"),
}
SHAPE: Final = tuple(len(names) for names in CLASSES.values())
STATES: Final = math.prod(SHAPE)


class Action(IntEnum):
    """How much an organisation takes part in a round."""

    ABSTAIN = 0
    LOW = 1
    MEDIUM = 2
    FULL = 3

    @property
    def effort(self) -> float:
        """The share of the federation's local steps."""
        return (0.0, 0.25, 0.5, 1.0)[self]

    def bid(self, steps: int, rank: int) -> Bid | None:
        """The bid out of the federation's local steps and rank: half the columns when low; None when it abstains."""
        if self is Action.ABSTAIN:
            return None
        return Bid(max(1, round(self.effort * steps)), max(1, rank // 2) if self is Action.LOW else rank)


@dataclass(frozen=True)
class Terms:
    """What a run offers, and what the organisation will spend on it. Raises ConfigError for a value out of its range.

    `pool` is what a round pays to all, `members` among how many, `rounds` how often; `steps` are the local steps of a
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
                raise ConfigError(f"{name} is {getattr(self, name)}, at least 1 wanted")

    @property
    def share(self) -> float:
        """An equal share of a round's pool."""
        return self.pool / self.members


@dataclass(frozen=True)
class Prices:
    """What an organisation pays for one local step and for one MiB. Raises ConfigError for what is no price."""

    step: float
    traffic: float

    def __post_init__(self) -> None:
        """Check both."""
        _check_amount("price of a step", self.step)
        _check_amount("price of traffic", self.traffic)

    def cost(self, action: Action, terms: Terms) -> float:
        """What a round costs."""
        if action is Action.ABSTAIN:
            return 0.0
        return self.step * max(1, round(action.effort * terms.steps)) + self.traffic * terms.traffic


@dataclass(frozen=True)
class Learning:
    """The schedules; `explore` is ε of the first decision, `halving` the decisions in which it falls to a half."""

    discount: float = 0.3
    optimism: float = 1.0
    explore: float = 0.2
    explore_least: float = 0.01
    halving: float = 20.0
    step_power: float = 0.7
    step_least: float = 0.05

    def epsilon(self, decisions: int) -> float:
        """The share of random decisions after so many."""
        return max(self.explore_least, self.explore * math.exp2(-decisions / self.halving))

    def step(self, visits: int) -> float:
        """The step size α of a cell's n-th visit: n^−power."""
        return max(self.step_least, math.pow(visits, -self.step_power))


_EXPECTED: Final[Mapping[str, float]] = {"nothing": -1.0, "loss": -0.5}
"""The payoff of a round over its cost, in the middle of the classes of gain in which it is a loss."""
_COST: Final = (0.25, 1.0, 2.0)
"""The price of a full round over an equal share, about the middle of each class of cost."""


@dataclass
class Cell:
    """One state: the value of every action in each of the two tables, and how often each was learnt from."""

    values: tuple[list[float], list[float]]
    visits: list[int]

    @classmethod
    def fresh(cls, state: int, optimism: float) -> Self:
        """A state that was never seen."""
        parts = parts_of(state)
        expected = _EXPECTED.get(CLASSES["gain"][parts["gain"]])
        full = optimism if expected is None else expected * _COST[parts["cost"]]
        start = [full * action.effort for action in Action]
        return cls((list(start), list(start)), [0] * len(Action))

    def mean(self, action: int) -> float:
        """The value of an action over both tables."""
        return (self.values[0][action] + self.values[1][action]) / 2

    def best(self, among: Sequence[Action] = tuple(Action)) -> Action:
        """The action of the highest value, the least effort where several have it."""
        return max(among, key=lambda action: (self.mean(action), -action))

    @classmethod
    def from_data(cls, data: Any) -> Self:
        """Parse saved data; raises FormatError."""
        try:
            first, second, visits = (list(row) for row in data)
        except (TypeError, ValueError) as error:
            raise FormatError(f"malformed cell of a Q-table: {error}") from error
        numbers = [*first, *second]
        if {len(first), len(second), len(visits)} != {len(Action)} or not all(_is_number(v) for v in numbers):
            raise FormatError(f"malformed cell of a Q-table: {data}")
        if not all(type(n) is int and n >= 0 for n in visits):
            raise FormatError(f"malformed cell of a Q-table: visits are {visits}")
        return cls((first, second), visits)


class QTable:
    """The states that were seen, by number; the others are as they were at the start."""

    def __init__(self, learning: Learning, cells: Mapping[int, Cell] | None = None) -> None:
        self.learning = learning
        self.cells = dict(cells or {})

    def __getitem__(self, state: int) -> Cell:
        return self.cells.get(state) or Cell.fresh(state, self.learning.optimism)

    def learn(self, state: int, action: Action, reward: float, after: int | None, coin: float) -> None:
        """Move one table, `coin` in [0, 1) says which, towards the reward and what comes `after` (None: the end)."""
        which = int(coin < 0.5)
        cell = self.cells.setdefault(state, Cell.fresh(state, self.learning.optimism))
        target = reward
        if after is not None:
            own, other = self[after].values[which], self[after].values[1 - which]
            target += self.learning.discount * other[max(Action, key=lambda u: (own[u], -u))]
        cell.visits[action] += 1
        # Each table gets about half of the visits.
        cell.values[which][action] += self.learning.step((cell.visits[action] + 1) // 2) * (
            target - cell.values[which][action]
        )

    @property
    def visits(self) -> dict[str, int]:
        """How many rounds were learnt from, by action."""
        return {action.name.lower(): sum(cell.visits[action] for cell in self.cells.values()) for action in Action}

    def to_data(self) -> dict[str, Any]:
        """Plain data, the seen states alone."""
        cells = {str(state): [*cell.values, cell.visits] for state, cell in sorted(self.cells.items())}
        return {"version": VERSION, "shape": [*SHAPE, len(Action)], "learning": asdict(self.learning), "cells": cells}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """Parse plain data; raises FormatError for another version, another shape, or what is no table."""
        try:
            version, shape, cells, learning = (data[name] for name in ("version", "shape", "cells", "learning"))
        except (KeyError, TypeError) as error:
            raise FormatError(f"malformed Q-table: no {error}") from error
        if version != VERSION:
            raise FormatError(f"Q-table of version {version!r}, {VERSION} wanted")
        if shape != [*SHAPE, len(Action)]:
            raise FormatError(f"Q-table of shape {shape!r}, {[*SHAPE, len(Action)]} wanted")
        try:
            found = {int(state): Cell.from_data(cell) for state, cell in cells.items()}
            schedules = Learning(**learning)
        except (AttributeError, TypeError, ValueError) as error:
            raise FormatError(f"malformed Q-table: {error}") from error
        if not all(0 <= state < STATES for state in found) or not all(_is_number(v) for v in learning.values()):
            raise FormatError("malformed Q-table: a state or a schedule is out of range")
        return cls(schedules, found)


def state_of(parts: Mapping[str, int]) -> int:
    """The number of a state from the class of each of its parts."""
    number = 0
    for name, names in CLASSES.items():
        number = number * len(names) + parts[name]
    return number


def parts_of(state: int) -> dict[str, int]:
    """The class of each part of a state."""
    parts = {}
    for name, names in reversed(list(CLASSES.items())):
        state, parts[name] = divmod(state, len(names))
    return {name: parts[name] for name in CLASSES}


@dataclass
class Decision:
    """What was decided for a round, and what came of it."""

    round: int
    state: int
    action: Action
    cost: float = 0.0
    """What was spent on it; 0 until it is trained."""
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
        """What is left of the budget."""
        return self.terms.budget - self.spent

    def decision(self, number: int) -> Decision | None:
        """What was decided for a round, if it was and is not learnt from yet."""
        return next((decision for decision in self.waiting if decision.round == number), None)

    def decide(self, number: int, prices: Prices) -> Action:
        """What to bid for a round; asked again it answers the same. Raises UsageError for a round before one decided.

        A bid is made only when the budget covers it besides what was bid for rounds that are still to be trained.
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
        """What the budget covers besides what was bid for rounds that are still to be trained."""
        reserved = sum(prices.cost(d.action, self.terms) for d in self.waiting if d.income is None and not d.cost)
        return [a for a in Action if a is Action.ABSTAIN or prices.cost(a, self.terms) <= self.left - reserved]

    def take(self, number: int, state: int, action: Action) -> None:
        """Decide for a round. Raises UsageError when a later one is decided already."""
        if self.waiting and number <= self.waiting[-1].round:
            raise UsageError(f"round {number} is over: {self.waiting[-1].round} is already decided")
        self.decisions += 1
        self.waiting.append(Decision(number, state, action))
        self._learn()

    def perform(self, number: int, prices: Prices, drafted: bool = False) -> float | None:
        """Spend what a round costs that was bid for; None when it abstains, or prices rose above what is left.

        Whoever abstained and is `drafted`, since too few bid, takes part a little.
        """
        decision = self.decision(number)
        if decision is None:
            return None
        action = Action.LOW if drafted and decision.action is Action.ABSTAIN else decision.action
        cost = prices.cost(action, self.terms)
        if action is Action.ABSTAIN or cost > self.left + decision.cost:
            return None
        decision.action = action
        self.spent += cost - decision.cost
        decision.cost, self.taken = cost, number
        return cost

    def settle(self, number: int, income: float) -> None:
        """Book what a round paid; raises ConfigError for what is no amount. Told again it changes nothing."""
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
        """A number in [0, 1): the next of this agent's own sequence (Steele et al., 2014, SplitMix64)."""
        self.draws += 1
        mixed = (self.seed * 0xD1342543DE82EF95 + self.draws * 0x9E3779B97F4A7C15) & _MASK
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
        return ((mixed ^ (mixed >> 31)) >> 11) / 2**53

    def to_bytes(self) -> bytes:
        """Canonical JSON of everything but the terms, which the run fixes."""
        plain = {name: getattr(self, name) for name in _SAVED}
        return to_json(plain | {"waiting": [asdict(d) for d in self.waiting], "table": self.table.to_data()})

    @classmethod
    def from_bytes(cls, data: bytes, terms: Terms) -> Self:
        """Parse what was saved; raises FormatError when it is none, or a table of another version or shape."""
        parsed = from_json(data)
        if not isinstance(parsed, dict):
            raise FormatError("malformed agent: not an object")
        try:
            table = QTable.from_data(parsed["table"])
            waiting = [Decision(**{**d, "action": Action(d["action"])}) for d in parsed["waiting"]]
            plain = {name: parsed[name] for name in _SAVED}
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"malformed agent: {error}") from error
        if not (_is_number(plain["spent"]) and _is_number(plain["earned"])):
            raise FormatError("malformed agent: spent or earned is not a number")
        return cls(terms=terms, table=table, waiting=waiting, **plain)


_SAVED: Final = ("seed", "frozen", "draws", "decisions", "spent", "earned", "gain", "taken")
_MASK: Final = 2**64 - 1


class Notebook:
    """An agent's saved states, one file for each (generation, round), in the organisation's own folder.

    A file holds the agent as it was once the message of that round was worked off; the start is (0, 0).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, generation: int, number: int, agent: Agent) -> None:
        """Write whole or not at all; raises RunError."""
        write(self._path(generation, number), agent.to_bytes())

    def before(self, generation: int, number: int, terms: Terms) -> Agent | None:
        """The agent as it was before the message of a round; None when it has not begun. Raises FormatError.

        A generation goes on from the round of an earlier one that it forks from.
        """
        found = [place for place in self._places() if place[0] <= generation and place[1] < number]
        return Agent.from_bytes(self._path(*max(found)).read_bytes(), terms) if found else None

    def newest(self, terms: Terms) -> Agent | None:
        """The agent as it is now. Raises FormatError."""
        return self.before(2**32, 2**32, terms)

    def forget(self, generation: int, number: int) -> int:
        """Delete the states of generations before `generation` that are later than round `number`; returns how many.

        So an agent no longer knows what rounds paid that an erasure took back. Raises RunError.
        """
        gone = [place for place in self._places() if place[0] < generation and place[1] > number]
        for place in gone:
            Folder(self.folder).remove(self._path(*place).name)
        return len(gone)

    def _places(self) -> list[tuple[int, int]]:
        names = (path.stem.split("-") for path in self.folder.glob("G*-R*.json"))
        return [(int(generation[1:]), int(number[1:])) for generation, number in names]

    def _path(self, generation: int, number: int) -> Path:
        return self.folder / f"G{generation:05}-R{number:05}.json"


def read_table(path: Path) -> QTable:
    """A pre-trained table from a file; raises UsageError when it cannot be used."""
    try:
        return QTable.from_data(from_json(path.read_bytes()))
    except OSError as error:
        raise UsageError(f"Q-table {path} cannot be read: {error.strerror}") from error
    except FormatError as error:
        raise UsageError(f"Q-table {path}: {error}") from error


def policy_table(table: QTable) -> list[tuple[str, ...]]:
    """What is done in each class of gain (rows) and cost (columns): the action of most states seen, with their number.

    The first row names the columns. Classes that were never seen are "-".
    """
    header = ("gain", *(f"cost {name}" for name in CLASSES["cost"]))
    rows = [
        (name, *(_favourite(table, gain, cost) for cost in range(len(CLASSES["cost"]))))
        for gain, name in enumerate(CLASSES["gain"])
    ]
    return [header, *rows]


def explain(table: QTable) -> Iterator[str]:
    """The policy in words, one sentence for each class of gain and cost that was seen."""
    for gain, after in enumerate(_WORDS):
        for cost, price in enumerate(CLASSES["cost"]):
            cells = list(_seen(table, gain, cost))
            if not cells:
                continue
            action = _most(cells)
            value = sum(cell.mean(action) * sum(cell.visits) for cell in cells) / sum(sum(c.visits) for c in cells)
            visits = sum(sum(cell.visits) for cell in cells)
            yield (
                f"{after}, at a {price} price, it {_DOES[action]} "
                f"(worth {value:+.2f} equal shares, from {visits} rounds)."
            )


_WORDS: Final = (
    "Before it knows what rounds pay",
    "When rounds paid nothing",
    "When rounds paid less than they cost",
    "When rounds paid more than they cost",
    "When rounds paid twice their cost",
)
_DOES: Final = ("abstains", "takes part a little", "takes part by half", "takes part in full")


def _seen(table: QTable, gain: int, cost: int) -> Iterator[Cell]:
    for state, cell in table.cells.items():
        parts = parts_of(state)
        if (parts["gain"], parts["cost"]) == (gain, cost) and any(cell.visits):
            yield cell


def _most(cells: Sequence[Cell]) -> Action:
    """The best action, cells counted by their visits."""
    votes = dict.fromkeys(Action, 0)
    for cell in cells:
        votes[cell.best()] += sum(cell.visits)
    return max(Action, key=lambda action: votes[action])


def _favourite(table: QTable, gain: int, cost: int) -> str:
    cells = list(_seen(table, gain, cost))
    return f"{_most(cells).name.lower()} ({sum(sum(c.visits) for c in cells)})" if cells else "-"


def _class(value: float, bounds: Sequence[float]) -> int:
    """How many of the bounds a value reaches."""
    return sum(value >= bound for bound in bounds)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_amount(name: str, value: float) -> None:
    if not _is_number(value) or value < 0:
        raise ConfigError(f"{name} is {value!r}, a number of at least 0 wanted")
