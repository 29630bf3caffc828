"""The Q-function of an organisation's agent: the value of each action at the prices of a round, and how it is learnt.

    Q(s, a) = w_0 + w_1 · effort(a)^power − cost(s, a)

in equal shares of a round's pool: 0 is the payoff of abstaining. The cost of an action is known before the bid; the
income isn't, and is learnt. It grows less than the effort does: the power makes what is learnt of one effort hold for
the others. w_1 is the organisation's own gain, the income of a full round; it starts at one equal share, since that is
what rounds pay on average. w_0 is what goes on being worth something whatever is done now.

Learning is Q-learning with linear function approximation (Sutton and Barto, 2018, section 11.3), the step normalised by
the features φ = (1, effort^power):

    w += α [income(a) + γ max_a' Q(s', a') − w · φ(a)] φ(a) / |φ(a)|²

The payoff is income − cost, and the cost stands on both sides. α falls with the rounds that the agent took part in.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from typing import Any, Final, Self

from core.errors import FormatError
from core.parsing import parsed
from core.update import Bid

VERSION: Final = 2
_SHOWN_PRICES: Final = (0.25, 0.5, 1.0, 2.0)
"""Prices of a full round in equal shares, at which people are shown the policy."""
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
    """Discount γ, the first w_1 in equal shares, the power of effort, and the step size α = n^−step_power."""

    discount: float = 0.3
    first_gain: float = 1.0
    power: float = 0.7
    step_power: float = 0.7
    step_least: float = 0.05

    def step(self, rounds: int) -> float:
        """The step size α once this many rounds were taken part in; that of the first before any."""
        return max(self.step_least, math.pow(max(1, rounds), -self.step_power))


@dataclass
class QFunction:
    """The weights w_0 and w_1 in equal shares, and the rounds that were learnt from, by action."""

    learning: Learning
    weights: list[float]
    visits: list[int] = field(default_factory=lambda: [0] * len(Action))

    @classmethod
    def untaught(cls, learning: Learning) -> Self:
        """Before the first round."""
        return cls(learning, [0.0, learning.first_gain])

    def value(self, action: Action, cost: float) -> float:
        """The value of an action of this cost, both in equal shares."""
        return self._before_cost(action) - cost

    def learn(self, action: Action, income: float, after: float) -> None:
        """Learn from an action's income and the value of the best action after it, both in equal shares."""
        self.visits[action] += 1
        step = self.learning.step(sum(self.visits[Action.LOW :]))
        error = income + self.learning.discount * after - self._before_cost(action)
        features = self._features(action)
        square = sum(feature * feature for feature in features)
        self.weights = [w + step * error * f / square for w, f in zip(self.weights, features, strict=True)]

    def _before_cost(self, action: Action) -> float:
        return sum(w * f for w, f in zip(self.weights, self._features(action), strict=True))

    def _features(self, action: Action) -> tuple[float, float]:
        return 1.0, math.pow(action.effort, self.learning.power)

    def to_data(self) -> dict[str, Any]:
        """Plain data."""
        return {"version": VERSION, **asdict(self)}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """Parse plain data; raises FormatError for another version, and for malformed data."""
        try:
            version, learning, weights, visits = (data[n] for n in ("version", "learning", "weights", "visits"))
            if version != VERSION:
                raise FormatError(f"Q-function: expected version {VERSION}, got {version!r}")
            found = cls(parsed(Learning, learning, {}), list(weights), list(visits))
        except (KeyError, TypeError) as error:
            raise FormatError(f"malformed Q-function: {error}") from error
        if not all(is_number(value) for value in found.weights):
            raise FormatError("malformed Q-function: a weight is not a number")
        if not all(type(n) is int and n >= 0 for n in found.visits):
            raise FormatError(f"malformed Q-function: visits are {found.visits}")
        if (len(found.weights), len(found.visits)) != (2, len(Action)):
            raise FormatError(
                f"Q-function: expected 2 weights and {len(Action)} counts of visits, got {weights, visits}"
            )
        return found


def is_number(value: object) -> bool:
    """Whether a value read from elsewhere is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def policy_table(values: QFunction) -> list[tuple[str, ...]]:
    """The best action, and its expected payoff in equal shares, at some prices of a full round.

    The first row names the columns. Traffic is left out of the prices, so that effort alone costs.
    """
    rows: list[tuple[str, ...]] = [("price of a full round [shares]", "bid", "expected payoff [shares]")]
    for price in _SHOWN_PRICES:
        best = _best_at(values, price)
        payoff = values.value(best, price * best.effort) - values.value(Action.ABSTAIN, 0.0)
        rows.append((f"{price:g}", best.name.lower(), f"{payoff:+.2f}"))
    return rows


def explain(values: QFunction) -> Iterator[str]:
    """The policy in words: the gain, and the bid at each of some prices."""
    rounds = sum(values.visits[Action.LOW :])
    yield f"It expects {values.weights[1]:.2f} equal shares of a round in full, learnt from {rounds} rounds."
    for price in _SHOWN_PRICES:
        yield f"Where that costs {price:g} equal shares, it {_CONDUCT[_best_at(values, price)]}."


def _best_at(values: QFunction, price: float) -> Action:
    """The best action where a full round has this price in equal shares."""
    return max(Action, key=lambda action: (values.value(action, price * action.effort), -action))
