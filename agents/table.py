"""The Q-table of an organisation's agent: the value of each action in each state, and how it is learnt.

The state is made of facts about the organisation itself, each in a few classes (405 states):

    gain       income over cost of its rounds: not known yet, nothing, a loss, a profit, twice the cost
    cost       the price of a full round over an equal share of the pool: low, fair, high
    budget     how much of the rest of the run it can still pay for in full: a third, not all, all
    phase      the first quarter of the run, the middle, the last quarter
    staleness  rounds since it last took part: up to one, up to three, more

The reward of a round is its payoff, income − cost, over an equal share of the pool: 0 for abstaining. Learning is
double Q-learning (van Hasselt, 2010, algorithm 1): of two tables one, drawn, moves towards the value that the *other*
gives to the action it likes best itself, Q_a(s, u) += α [r + γ Q_b(s', argmax_u Q_a(s', u)) − Q_a(s, u)]. ε falls with
the decisions made, α with the visits to a cell. Abstaining starts at 0, its payoff; taking part at an optimistic
value in proportion to its effort. But where rounds are known to pay less than they cost, a state never seen
starts at the expected loss, (gain − 1) · cost: there is hope in the unknown alone.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, Self

from core.canonical import from_json
from core.errors import FormatError, UsageError
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
_EXPECTED_PAYOFF: Final[Mapping[str, float]] = {"nothing": -1.0, "loss": -0.5}
"""The payoff of a round over its cost, in the middle of the classes of gain in which it is a loss."""
_TYPICAL_COST: Final = (0.25, 1.0, 2.0)
"""The price of a full round over an equal share, about the middle of each class of cost."""
_CIRCUMSTANCES: Final = (
    "Before it knows what rounds pay",
    "When rounds paid nothing",
    "When rounds paid less than they cost",
    "When rounds paid more than they cost",
    "When rounds paid twice their cost",
)
_CONDUCT: Final = ("abstains", "takes part a little", "takes part by half", "takes part in full")


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


@dataclass
class Cell:
    """One state: the value of every action in each of the two tables, and how often each was learnt from."""

    values: tuple[list[float], list[float]]
    visits: list[int]

    @classmethod
    def fresh(cls, state: int, optimism: float) -> Self:
        """A state that was never seen."""
        parts = parts_of(state)
        expected = _EXPECTED_PAYOFF.get(CLASSES["gain"][parts["gain"]])
        full = optimism if expected is None else expected * _TYPICAL_COST[parts["cost"]]
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
        if {len(first), len(second), len(visits)} != {len(Action)} or not all(is_number(v) for v in numbers):
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
        step = self.learning.step((cell.visits[action] + 1) // 2)  # each table gets about half of the visits
        cell.values[which][action] += step * (target - cell.values[which][action])

    @property
    def visits(self) -> dict[str, int]:
        """The rounds learnt from, by action."""
        return {action.name.lower(): sum(cell.visits[action] for cell in self.cells.values()) for action in Action}

    def to_data(self) -> dict[str, Any]:
        """Plain data, the seen states alone."""
        cells = {str(state): [*cell.values, cell.visits] for state, cell in sorted(self.cells.items())}
        return {"version": VERSION, "shape": [*SHAPE, len(Action)], "learning": asdict(self.learning), "cells": cells}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """Parse plain data; raises FormatError for another version or shape, and for malformed data."""
        try:
            version, shape, cells, learning = (data[name] for name in ("version", "shape", "cells", "learning"))
        except (KeyError, TypeError) as error:
            raise FormatError(f"malformed Q-table: no {error}") from error
        if version != VERSION:
            raise FormatError(f"Q-table: expected version {VERSION}, got {version!r}")
        if shape != [*SHAPE, len(Action)]:
            raise FormatError(f"Q-table: expected shape {[*SHAPE, len(Action)]}, got {shape!r}")
        try:
            parsed = {int(state): Cell.from_data(cell) for state, cell in cells.items()}
            schedules = Learning(**learning)
        except (AttributeError, TypeError, ValueError) as error:
            raise FormatError(f"malformed Q-table: {error}") from error
        if not all(0 <= state < STATES for state in parsed) or not all(is_number(v) for v in learning.values()):
            raise FormatError("malformed Q-table: a state or a schedule is out of range")
        return cls(schedules, parsed)


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


def read_table(path: Path) -> QTable:
    """A pre-trained table from a file; raises UsageError when it cannot be used."""
    try:
        return QTable.from_data(from_json(path.read_bytes()))
    except OSError as error:
        raise UsageError(f"Q-table {path}: expected a readable file, got {error.strerror}") from error
    except FormatError as error:
        raise UsageError(f"Q-table {path}: {error}") from error


def is_number(value: object) -> bool:
    """Whether a value read from elsewhere is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def policy_table(table: QTable) -> list[tuple[str, ...]]:
    """The action in each class of gain (rows) and cost (columns): that of most visits, with their number.

    The first row names the columns. Classes that were never seen are "-".
    """
    rows = [("gain", *(f"cost {name}" for name in CLASSES["cost"]))]
    for gain, name in enumerate(CLASSES["gain"]):
        seen = [_seen(table, gain, cost) for cost in range(len(CLASSES["cost"]))]
        rows.append(
            (name, *(f"{_favourite(cells).name.lower()} ({_visits(cells)})" if cells else "-" for cells in seen))
        )
    return rows


def explain(table: QTable) -> Iterator[str]:
    """The policy in words, one sentence for each class of gain and cost that was seen."""
    for gain, circumstance in enumerate(_CIRCUMSTANCES):
        for cost, price in enumerate(CLASSES["cost"]):
            if cells := _seen(table, gain, cost):
                action, visits = _favourite(cells), _visits(cells)
                value = sum(cell.mean(action) * _visits([cell]) for cell in cells) / visits
                yield (
                    f"{circumstance}, at a {price} price, it {_CONDUCT[action]} "
                    f"(worth {value:+.2f} equal shares, from {visits} rounds)."
                )


def _seen(table: QTable, gain: int, cost: int) -> list[Cell]:
    """The cells of these classes that were learnt from."""
    classes = {"gain": gain, "cost": cost}
    return [
        cell for state, cell in table.cells.items() if any(cell.visits) and classes.items() <= parts_of(state).items()
    ]


def _favourite(cells: Sequence[Cell]) -> Action:
    """The best action, cells counted by their visits."""
    votes = dict.fromkeys(Action, 0)
    for cell in cells:
        votes[cell.best()] += _visits([cell])
    return max(Action, key=lambda action: votes[action])


def _visits(cells: Sequence[Cell]) -> int:
    return sum(sum(cell.visits) for cell in cells)
