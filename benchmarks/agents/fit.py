"""Fits the market's learning curves (`agents.market.LearningCurve`) to real federated rounds.

    python -m benchmarks.agents.fit

Reads rounds.json (`benchmarks.agents.rounds`) and minimises the squared differences between measured and modelled
losses on every domain after every round, by Levenberg–Marquardt: the floor of each domain, what an organisation teaches
its own domain and any other, and the powers of effort and breadth. One run is held out at a time to give the error on a
run that the curve was not fitted to. (Tried and worse on held-out runs: an exponential fall, a transfer of its own for
each domain or each pair, no schedule.)
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from agents.market import LearningCurve
from benchmarks import report
from benchmarks.agents import rounds

Float64 = NDArray[np.float64]
SEED = 7
FULL_STEPS = 10
"""Local steps of a full round."""


def main() -> None:
    """Fit, print and write."""
    runs = report.read(rounds.PATH)["figures"]["runs"]
    curve = fitted(runs)
    held_out = [error(fitted([*runs[:i], *runs[i + 1 :]]), [run]) for i, run in enumerate(runs)]
    figures = {
        "curve": as_data(curve, sorted(runs[0]["start"])),
        "points": sum(len(run["rounds"]) for run in runs) * len(curve.start),
        "error_nats": error(curve, runs),
        "held_out_error_nats": {f"run {i}": value for i, value in enumerate(held_out)},
        "start_nats": float(np.mean(list(runs[0]["start"].values()))),
        "end_nats_of_everyone_in_full": float(measured(runs[0])[-1].mean()),
    }
    report.write("agents_fit", figures, "python -m benchmarks.agents.fit", SEED)
    print(json.dumps(figures, indent=1))


def fitted(runs: Sequence[Mapping[str, Any]]) -> LearningCurve:
    """The curve with the least squared error on the runs."""
    start = np.mean([_row(run["start"]) for run in runs], axis=0)
    domains = len(start)
    lowest = np.min([_row(entry["losses"]) for run in runs for entry in run["rounds"]], axis=0)
    # The floors start at four fifths of the lowest loss measured.
    guess = np.concatenate([np.log(start / (0.8 * lowest) - 1), np.log([0.4, 0.1]), [0.5, 0.0]])

    def curve(parameters: Float64) -> LearningCurve:
        # Logistic and exponential keep floors between 0 and the start, and transfers positive, without constraints.
        floor = start / (1 + np.exp(parameters[:domains]))
        own, other = np.exp(parameters[domains : domains + 2])
        transfer = own * np.eye(domains) + other * (1 - np.eye(domains))
        return LearningCurve(
            start, floor, transfer, float(parameters[-2]), float(parameters[-1]), len(runs[0]["rounds"])
        )

    def residuals(parameters: Float64) -> Float64:
        return np.concatenate([(modelled(curve(parameters), run) - measured(run)).ravel() for run in runs])

    return curve(least_squares(residuals, guess, method="lm").x)


def modelled(curve: LearningCurve, run: Mapping[str, Any]) -> Float64:
    """The losses of a run according to the curve: shape (rounds, domains)."""
    names = sorted(run["start"])
    domains = np.array([names.index(member["domain"]) for member in run["members"]])
    examples = np.array([member["examples"] for member in run["members"]], np.float64)
    progress, losses = np.zeros(len(names)), []
    for number, entry in enumerate(run["rounds"], 1):
        efforts = np.array(entry["steps"]) / FULL_STEPS
        weights = np.where(efforts > 0, examples, 0.0)
        gains = curve.gains(weights / weights.sum(), efforts, np.ones(len(efforts)), domains)
        progress = progress + curve.rate(number, len(run["rounds"])) * gains.sum(axis=1)
        losses.append(curve.loss(progress))
    return np.array(losses)


def measured(run: Mapping[str, Any]) -> Float64:
    """The losses of a run: shape (rounds, domains)."""
    return np.array([_row(entry["losses"]) for entry in run["rounds"]])


def error(curve: LearningCurve, runs: Sequence[Mapping[str, Any]]) -> float:
    """The root mean squared difference in nats."""
    return float(np.sqrt(np.mean([np.mean((modelled(curve, run) - measured(run)) ** 2) for run in runs])))


def as_data(curve: LearningCurve, domains: Sequence[str]) -> dict[str, Any]:
    """The curve as figures: start and floor by domain, transfer to an organisation's own domain and to others."""
    named = {n: dict(zip(domains, np.round(getattr(curve, n), 6).tolist(), strict=True)) for n in ("start", "floor")}
    own, other = float(curve.transfer[0, 0]), float(curve.transfer[0, 1])
    scalars = {"own": own, "other": other, "power": curve.power, "breadth": curve.breadth}
    return named | {name: round(value, 6) for name, value in scalars.items()} | {"rounds": curve.rounds}


def read() -> LearningCurve:
    """The curve of the result file."""
    found = report.figures("agents_fit")["curve"]
    count = len(found["start"])
    transfer = found["own"] * np.eye(count) + found["other"] * (1 - np.eye(count))
    plain = {name: list(found[name].values()) for name in ("start", "floor")}
    return LearningCurve.from_data(found | plain | {"transfer": transfer})


def _row(losses: Mapping[str, float]) -> Float64:
    return np.array([losses[name] for name in sorted(losses)])


if __name__ == "__main__":
    main()
