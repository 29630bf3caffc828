r"""Credit: every organisation's part of a round's effect on the loss on the shared validation set.

For each domain of that set the Aumann–Shapley values along the straight line from the state before the round to the one
after it divide the change of the loss among the weighted updates p_k δ_k:

    credit_k = −∫_0^1 ⟨∇L(B + α (B' − B)), p_k δ_k⟩ dα,    Σ_k credit_k = L(B) − L(B'),    B' = B + Σ_k p_k δ_k

(Aumann and Shapley, 1974; Sundararajan et al., 2017, arXiv 1703.01365, equation 1). The integral is a Gauss–Legendre
sum of at most four gradients a domain, whatever the number of organisations; its error is the residual. An
organisation's credit is the mean over the domains, so that a small domain is not voted down.

Not everything in an update is its sender's merit; the rest goes to nobody, and is published as such:

- Along v, the step of the round before, an update is public: handing back v would be paid. The update is projected off
  v. A harm along v stays with its sender, else handing back −v would cost nothing.
- Updates with a cosine of 0.9 or more, once projected, are copies of each other, and each of n has an n-th of its
  credit: n copies earn together as much as one of them would. A harm is not divided.

It works for rules whose state is a sum of weighted updates: frozen-a, and fedavg, whose factors both move.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.adapter import AdapterState
from core.aggregation import WeightedUpdate
from core.canonical import Address
from core.credit import DomainCredit, RoundCredit
from core.errors import ConfigError

Float64 = NDArray[np.float64]
LossAndGradient = Callable[[AdapterState, str], tuple[float, AdapterState]]
"""(state, domain) -> the loss on the domain in nats, and its gradient with respect to the state."""

POINTS = 3
MOST_POINTS = 4
COPIES = 0.9
RULES = ("frozen-a", "fedavg")
"""The rules whose rounds can be credited."""


@dataclass(frozen=True)
class CreditedRound:
    """One round of a lane: the states before and after it, its admitted updates, and the state one round earlier.

    `earlier` is None in a lane's first round.
    """

    before: AdapterState
    updates: Sequence[WeightedUpdate]
    after: AdapterState
    earlier: AdapterState | None = None


def measure(
    done: CreditedRound,
    loss_and_gradient: LossAndGradient,
    losses: Mapping[str, tuple[float, float]],
    points: int = POINTS,
) -> RoundCredit:
    """Credit a round; `losses` are those of the states before and after it, by domain.

    Raises ConfigError for more than four points or fewer than one.
    """
    if not 1 <= points <= MOST_POINTS:
        raise ConfigError(f"points of the integral: expected 1 to {MOST_POINTS}, got {points}")
    updates = np.stack([_flat(update.state) for update in done.updates])
    weights = np.array([update.weight for update in done.updates])
    public = _flat(done.before) - _flat(done.earlier) if done.earlier is not None else np.zeros(updates.shape[1])
    square = float(public @ public)
    along = (updates @ public) / square if square > 0 else np.zeros(len(updates))  # ⟨δ_k, v⟩ / ⟨v, v⟩
    gradients = {name: _gradient(done, loss_and_gradient, name, points) for name in losses}
    whole = {name: -weights * (updates @ g) for name, g in gradients.items()}
    shared = {name: -weights * along * (public @ g) for name, g in gradients.items()}
    earned = _mean(shared) > 0  # a gain along the public step is nobody's, a harm is its sender's
    own = {name: whole[name] - np.where(earned, shared[name], 0.0) for name in losses}
    divisors = np.where(_mean(own) > 0, _copies(updates - np.outer(along, public)), 1)
    domains = {}
    for name, (before, after) in losses.items():
        credits, total = own[name] / divisors, float(whole[name].sum())
        by_organisation = {u.organisation: float(c) for u, c in zip(done.updates, credits, strict=True)}
        nobody = total - float(credits.sum())
        domains[name] = DomainCredit(before - after, by_organisation, nobody, before - after - total)
    return RoundCredit(domains)


def incomes(credit: Mapping[Address, float], pool: float) -> dict[Address, float]:
    """The payments of a round: pool · max(credit, 0) / Σ max(credit, 0); nothing when nobody has earned anything."""
    positive = {a: max(value, 0.0) for a, value in credit.items()}
    total = sum(positive.values())
    return {a: pool * value / total if total > 0 else 0.0 for a, value in positive.items()}


def _gradient(done: CreditedRound, loss_and_gradient: LossAndGradient, name: str, points: int) -> Float64:
    """The mean gradient on the line from before to after."""
    nodes, weights = np.polynomial.legendre.leggauss(points)
    total = np.zeros(sum(array.size for array in done.before.arrays.values()))
    for node, weight in zip(nodes, weights, strict=True):
        part = (node + 1) / 2  # the nodes lie in [−1, 1]
        between = {n: (b + part * (done.after[n] - b)).astype(np.float32) for n, b in done.before.arrays.items()}
        gradient = _flat(loss_and_gradient(AdapterState(between), name)[1])
        # A model that diverged has none: nobody is credited, and the change is in the residual.
        total += 0.5 * weight * np.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
    return total


def _flat(state: AdapterState) -> Float64:
    return np.concatenate([array.ravel() for array in state.arrays.values()]).astype(np.float64)


def _copies(updates: Float64) -> NDArray[np.int64]:
    """The number of copies of each update, itself and copies of copies included."""
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415 - a second that other commands need not wait

    norms = np.linalg.norm(updates, axis=1, keepdims=True)
    directions = np.divide(updates, norms, out=np.zeros_like(updates), where=norms > 0)
    # Components and not neighbours: a copy of a copy is a copy, too.
    _, component = connected_components(directions @ directions.T >= COPIES, directed=False)
    counts: NDArray[np.int64] = np.bincount(component)[component]
    return counts


def _mean(domains: Mapping[str, Float64]) -> Float64:
    mean: Float64 = np.mean(list(domains.values()), axis=0)
    return mean
