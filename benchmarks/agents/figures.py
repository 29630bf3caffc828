"""The figures of played runs, and how they compare with the targets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.market import FREE_RIDERS, MarketRound
from core.intervals import MeanInterval

Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PlayedRun:
    """One run: the kinds of its members, the market's terms, the mean loss at the start, and every round."""

    kinds: NDArray[np.str_]
    run: Mapping[str, Any]
    start: float
    rounds: tuple[MarketRound, ...]

    @property
    def losses(self) -> Float64:
        """The mean loss after every round."""
        return np.array([outcome.losses.mean() for outcome in self.rounds])

    @property
    def costs(self) -> Float64:
        """The costs of all members together, by round."""
        return np.array([outcome.costs.sum() for outcome in self.rounds])

    @property
    def incomes(self) -> Float64:
        """The income of each organisation from the whole run."""
        return np.asarray(np.sum([outcome.incomes for outcome in self.rounds], axis=0))

    @property
    def payoffs(self) -> Float64:
        """The income of each organisation less its costs."""
        return np.asarray(self.incomes - np.sum([outcome.costs for outcome in self.rounds], axis=0))

    @property
    def first_costs(self) -> Float64:
        """The cost of the first round that each organisation took part in; 0 where it took part in none."""
        costs = np.array([outcome.costs for outcome in self.rounds])
        return np.asarray(costs[np.argmax(costs > 0, axis=0), np.arange(costs.shape[1])])

    @property
    def welfare(self) -> float:
        """The value of the fall of the loss to all, less all costs."""
        value = self.run["value"] * len(self.kinds) * (self.start - self.losses[-1])
        return float(value - self.costs.sum())

    @property
    def target(self) -> float:
        """The loss after nine tenths of this run's fall."""
        return float(self.start - 0.9 * (self.start - self.losses[-1]))


@dataclass(frozen=True)
class ToTarget:
    """Whether a run reached a target loss; rounds, cost and MiB until then, or until its end."""

    reached: bool
    rounds: float
    cost: float
    mib: float

    @classmethod
    def of(cls, run: PlayedRun, target: float) -> "ToTarget":
        """The way of a run to a mean loss in nats."""
        below = np.flatnonzero(run.losses <= target)
        last = int(below[0]) if len(below) else len(run.losses) - 1
        updates = sum(int((outcome.actions > 0).sum()) for outcome in run.rounds[: last + 1])
        cost = float(run.costs[: last + 1].sum())
        return cls(bool(len(below)), float(last + 1), cost, updates * run.run["traffic"])


def measured(played: Mapping[str, list[PlayedRun]]) -> dict[str, Any]:
    """All figures of one number of organisations: a row for each policy, and the agents against each baseline."""
    targets = [run.target for run in played["all"]]
    best = [run.welfare for run in played["oracle"]] if "oracle" in played else None
    found = {name: _figures(runs, targets, best) for name, runs in played.items()}
    cost = {
        name: np.array([ToTarget.of(r, t).cost for r, t in zip(runs, targets, strict=True)])
        for name, runs in played.items()
    }
    final = {name: np.array([run.losses[-1] for run in runs]) for name, runs in played.items()}
    against = [
        {
            "agents": "q-learning",
            "against": other,
            "cost_to_target_percent": str(MeanInterval.of(100 * (cost["q-learning"] / cost[other] - 1))),
            "final_loss_percent": str(MeanInterval.of(100 * (final["q-learning"] / final[other] - 1))),
        }
        for other in played
        if other not in ("q-learning", "oracle") and "q-learning" in played
    ]
    return {"policies": [{"policy": name} | values for name, values in found.items()], "against": against}


def _figures(runs: Sequence[PlayedRun], targets: Sequence[float], best: Sequence[float] | None) -> dict[str, str]:
    """The row of one policy, means with their intervals over the runs; `best` is the oracle's welfare."""
    ways = [ToTarget.of(run, target) for run, target in zip(runs, targets, strict=True)]
    honest = [run.kinds == "honest" for run in runs]
    riders = [np.isin(run.kinds, FREE_RIDERS) for run in runs]
    by_kind = list(zip(runs, honest, riders, strict=True))
    welfare = [run.welfare for run in runs]
    found = {
        "target_reached_share": [float(way.reached) for way in ways],
        "rounds_to_target": [way.rounds for way in ways],
        "cost_to_target": [way.cost for way in ways],
        "mib_to_target": [way.mib for way in ways],
        "total_cost": [float(run.costs.sum()) for run in runs],
        "final_loss": [float(run.losses[-1]) for run in runs],
        "worst_domain_loss": [float(run.rounds[-1].losses.max()) for run in runs],
        "fairness_jain": [_jain(run.incomes[h]) for run, h, _ in by_kind],
        "welfare": welfare,
        "honest_payoff": [run.payoffs[h].mean() for run, h, _ in by_kind],
        "worst_honest_payoff": [run.payoffs[h].min() for run, h, _ in by_kind],
        "honest_worse_than_abstaining_share": [(run.payoffs[h] < 0).mean() for run, h, _ in by_kind],
        "honest_lost_more_than_first_round_share": [
            (run.payoffs[h] < -run.first_costs[h] - 1e-9).mean() for run, h, _ in by_kind
        ],
        # The honest earn nothing where no credit was positive.
        "free_rider_income_over_honest": [
            run.incomes[r].mean() / max(run.incomes[h].mean(), 1e-9) for run, h, r in by_kind
        ],
        "free_rider_payoff": [run.payoffs[r].mean() for run, _, r in by_kind],
    }
    if best is not None:
        found["regret_to_oracle"] = [b - w for b, w in zip(best, welfare, strict=True)]
    return {name: str(MeanInterval.of(values)) for name, values in found.items()}


def _jain(values: Float64) -> float:
    """(Σ x)² / (n Σ x²): Jain et al., 1984."""
    square = float(np.sum(values**2))
    return float(np.sum(values)) ** 2 / (len(values) * square) if square > 0 else 1.0
