"""Robust admission: how much of each admitted update counts, so that a few poisoned ones can do little.

    rule          what counts of the update u_k of a round of K                              bound: meaning, default
    none          all of it
    clip          f_k = min(1, c · the members' median norm / ‖u_k‖), see core/clipping.py   c, 1.5
    multi-krum    f_k = 1 for the K − b with the lowest scores, 0 for the others             b / K, 0.3
    trimmed-mean  of every number the K − 2b in the middle, each with weight Σ w_j / (K − 2b)  b / K, 0.3
    validation    clip's f_k; 0 where the harm of f_k u_k alone is more than m               m in nats, 0.05

The harm of an update is the part of its effect on the validation loss that changes its sign with it, where the loss
rises: min(e(u), (e(u) − e(−u)) / 2), with e(u) the rise that u alone causes. An update with its sign changed does to
first order what honest training undoes. An organisation that teaches what the others do not know disturbs what these
have taught; that its opposite would do as well, and it is no harm in this sense.

validation clips by clip's own c first: a scaled update may lower a loss that is still high. b is rounded down, but 1 at
least where three or more are admitted. A score of Krum (Blanchard et al., NeurIPS 2017) is the sum of the squared
distances to the K − b − 2 nearest others, to one at least. The trimmed mean is Yin et al., ICML 2018; no number of it
weighs more than the genesis lets any one update weigh. Every rule yields weighted updates (`counted`), of which a
round's aggregate is the plain sum, as without one: it is audited, attributed and erased alike. A factor is recorded
beside its update; what a trimmed mean leaves of an update follows from the round's updates alone.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np

from core.adapter import AdapterState
from core.aggregation import Float64, WeightedUpdate, by_address
from core.canonical import Address

BOUNDS: Mapping[str, float] = {
    "none": 0.0,
    "clip": 1.5,
    "multi-krum": 0.3,
    "trimmed-mean": 0.3,
    "validation": 0.05,
}
"""The rules, and the bound of each where the settings name none."""
MEASURED_WITHIN = 0.01
"""Nats by which two machines may measure the effect of one update apart."""


@dataclass(frozen=True)
class Robust:
    """The rule that decides what counts of every admitted update, and its bound."""

    rule: str = "none"
    bound: float = 0.0

    @property
    def clips(self) -> bool:
        """Whether an update's factor follows from its norm."""
        return self.rule in ("clip", "validation")

    @property
    def compares(self) -> bool:
        """Whether it compares the updates of a round with each other, number by number."""
        return self.rule in ("multi-krum", "trimmed-mean")

    @property
    def multiple(self) -> float:
        """C of a rule that clips."""
        return self.bound if self.rule == "clip" else BOUNDS["clip"]

    def fault(self) -> str | None:
        """What is wrong with the bound of a known rule: `expected X, got Y`; None when nothing is."""
        most = 0.0 if self.rule == "none" else 0.5 if self.compares else math.inf
        # Half of a round's updates at either end would be all of it.
        if self.rule == "validation" and self.bound <= MEASURED_WITHIN:
            return (
                f"expected a bound of validation above {MEASURED_WITHIN:g} nats, by which two machines may measure "
                f"apart, got {self.bound:g}"
            )
        if not 0 <= self.bound <= most or self.bound == most == 0.5 or (self.bound == 0 and self.rule == "clip"):
            return f"expected a bound of {self.rule} {'of 0' if not most else f'below {most:g}'}, got {self.bound:g}"
        return None


NO_RULE = Robust()


class Likeness(NamedTuple):
    """How an update resembles the others of its round: its L2 norm, and its cosine to their sum.

    The cosine is 0 where either of the two is zero.
    """

    norm: float
    cosine: float


def likenesses(updates: Sequence[WeightedUpdate]) -> dict[Address, Likeness]:
    """How each of a round's updates resembles the others, unweighted. Each is read twice, and none kept."""
    total: dict[str, Float64] = {}
    for update in updates:
        for name, array in update.state.arrays.items():
            total[name] = total.get(name, 0.0) + array.astype(np.float64)
    whole, found = AdapterState(total), {}
    for update in updates:
        state = update.state
        own, along = state.norm**2, whole.dot(state)
        # ‖t − u‖² = ‖t‖² − 2 t·u + ‖u‖²: of the others' sum no copy is made.
        product = state.norm * math.sqrt(max(whole.norm**2 - 2 * along + own, 0.0))
        found[update.organisation] = Likeness(state.norm, (along - own) / product if product else 0.0)
    return found


def factors(
    robust: Robust,
    updates: Sequence[WeightedUpdate],
    clip: Mapping[Address, float],
    harms: Mapping[Address, float] | None = None,
) -> dict[Address, float]:
    """f_k of each of a round's updates, given what clipping leaves of it (core/clipping.py).

    `harms`, which the rule validation asks for: the harm of each update alone, clipped, in nats. Without a validation
    set there is none, and it clips.
    """
    if robust.rule == "multi-krum":
        left_out = cut(robust, len(updates))
        scores = krum_scores(updates, left_out)
        kept = sorted(scores, key=lambda a: (scores[a], by_address(a)))[: len(scores) - left_out]
        return {a: float(a in kept) for a in scores}
    if robust.rule == "validation" and harms:
        return {a: clip[a] * (harm <= robust.bound) for a, harm in harms.items()}
    return {update.organisation: clip[update.organisation] for update in updates}


def scaled(updates: Iterable[WeightedUpdate], by: Mapping[Address, float]) -> list[WeightedUpdate]:
    """Updates that weigh so many times as much."""
    return [replace(update, weight=update.weight * by[update.organisation]) for update in updates]


def rounding(updates: Iterable[WeightedUpdate]) -> float:
    """By what part of it a norm may differ between machines: sums of n float64 products by n 2⁻⁵²."""
    return 2.0**-52 * max((sum(array.size for array in u.state.arrays.values()) for u in updates), default=0)


def wrong(
    robust: Robust,
    updates: Sequence[WeightedUpdate],
    recorded: Mapping[Address, float],
    clip: Mapping[Address, float],
    harms: Mapping[Address, float] | None = None,
) -> dict[Address, float]:
    """The factors that a round should have, of those that were recorded as another one.

    Two machines measure a harm apart by `MEASURED_WITHIN`, and a distance by rounding: within that, either side of a
    bound is right, as it is of an update without `harms`.
    """
    unsure: set[Address] = set()
    if robust.rule == "validation":
        measured = harms or dict.fromkeys(recorded, robust.bound)
        unsure = {a for a, harm in measured.items() if abs(harm - robust.bound) <= MEASURED_WITHIN}
        harms = {a: robust.bound if a in unsure else harm for a, harm in measured.items()}
    if robust.rule == "multi-krum" and _are_nearest(updates, cut(robust, len(updates)), recorded, rounding(updates)):
        return {}
    return {
        a: factor
        for a, factor in factors(robust, updates, clip, harms).items()
        if recorded[a] != factor and not (a in unsure and recorded[a] == 0.0)
    }


def counted(
    robust: Robust, updates: Sequence[WeightedUpdate], recorded: Mapping[Address, float], most: float = 1.0
) -> list[WeightedUpdate]:
    """The weighted updates that a round's aggregate is the sum of, given those admitted and their factors.

    `most` is the most that any one may weigh.
    """
    left_out = cut(robust, len(updates)) if robust.rule == "trimmed-mean" else 0
    if not left_out:
        return scaled(updates, recorded)
    round_ = tuple(sorted(updates, key=lambda update: by_address(update.organisation)))
    # What was cut leaves its weight to what is left; no number may count more than one update may.
    weight = min(most, sum(update.weight for update in round_) / (len(round_) - 2 * left_out))
    return [
        WeightedUpdate(update.organisation, weight, partial(_middle_of, round_, left_out, index))
        for index, update in enumerate(round_)
    ]


def shares(
    robust: Robust, updates: Sequence[WeightedUpdate], recorded: Mapping[Address, float], norms: Mapping[Address, float]
) -> dict[Address, float]:
    """What part of the norm of each of a round's updates counts, given their factors and their norms."""
    if robust.rule != "trimmed-mean":
        return dict(recorded)
    left = {update.organisation: update.state.norm for update in counted(robust, updates, recorded)}
    return {a: left[a] / norm if norm else 1.0 for a, norm in norms.items()}


def cut(robust: Robust, admitted: int) -> int:
    """b: how many of a round's updates multi-krum leaves out, and trimmed-mean at either end; 0 of one or two."""
    return max(1, int(robust.bound * admitted)) if admitted > 2 else 0


def krum_scores(updates: Sequence[WeightedUpdate], left_out: int) -> dict[Address, float]:
    """Krum's score of each update: the sum of the squared distances to its K − b − 2 nearest others."""
    squares = {update.organisation: update.state.norm**2 for update in updates}
    distances: dict[Address, list[float]] = {organisation: [] for organisation in squares}
    for index, one in enumerate(updates):
        state = one.state  # read from the store once, and not for every pair
        for other in updates[index + 1 :]:
            a, b = one.organisation, other.organisation
            distance = max(squares[a] + squares[b] - 2 * state.dot(other.state), 0.0)
            distances[a].append(distance)
            distances[b].append(distance)
    nearest = max(1, len(updates) - left_out - 2)
    return {organisation: sum(sorted(found)[:nearest]) for organisation, found in distances.items()}


def _are_nearest(
    updates: Sequence[WeightedUpdate], left_out: int, recorded: Mapping[Address, float], part: float
) -> bool:
    """Whether Krum's scores allow that just these updates count, up to rounding."""
    scores = krum_scores(updates, left_out)
    kept, others = ([score for a, score in scores.items() if recorded[a] == factor] for factor in (1.0, 0.0))
    if len(others) != left_out or len(kept) + left_out != len(scores):
        return False
    # A squared distance is a difference of squared norms: what rounds is as large as the largest of these.
    slack = 4 * part * len(updates) * max((update.state.norm**2 for update in updates), default=0.0)
    return not others or max(kept) <= min(others) + slack


def _middle_of(updates: tuple[WeightedUpdate, ...], left_out: int, index: int) -> AdapterState:
    """What a trimmed mean leaves of one of a round's updates: 0 where it is among the least or the largest."""
    return _middles(updates, left_out)[index]


# The aggregate reads all of a round, one after the other: it is trimmed once, and forgotten with the next round.
@lru_cache(maxsize=1)
def _middles(updates: tuple[WeightedUpdate, ...], left_out: int) -> list[AdapterState]:
    states = [update.state for update in updates]
    middles: list[dict[str, np.ndarray]] = [{} for _ in states]
    for name in states[0]:
        stack = np.stack([state[name] for state in states])
        # Stable, so that of equal numbers those of the lowest addresses come first.
        order = np.argsort(stack, axis=0, kind="stable")[left_out : len(states) - left_out]
        kept = np.zeros(stack.shape, dtype=bool)
        np.put_along_axis(kept, order, True, axis=0)
        for middle, own in zip(middles, np.where(kept, stack, np.float32(0.0)), strict=True):
            middle[name] = own
    return [AdapterState(middle) for middle in middles]
