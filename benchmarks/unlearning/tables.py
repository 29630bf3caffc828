"""Tables of the measurements that `python -m benchmarks.unlearning` has kept.

    python -m benchmarks.unlearning.tables --work WORK

Means are over seeds, with the 95 % interval of Student's t. A method of one seed is compared with retrained models of
other seeds only: with that of its own it shares every batch of the remaining organisations, which no third party could
expect.
"""

import argparse
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np

from benchmarks import arguments, report
from benchmarks.statistics import gap
from benchmarks.unlearning.follow import PRECISIONS, RELEARNT
from benchmarks.unlearning.measure import METHODS
from benchmarks.unlearning.tasks import SHARDS, TASKS
from core.intervals import MeanInterval
from unlearning import metrics

COMMAND = "python -m benchmarks.unlearning.tables --work WORK"
VOID_P, VOID_BITS = 0.01, 6.0
"""TOFU figures are void unless the untouched model's p is below, canaries unless it shows at least so many bits."""
UNSEEN_LEVEL = 0.99
"""Confidence that a method's canaries are not as ones never seen, before that is said."""
REPAIR_DEVIATIONS, REPAIR_COST, ACCURACY_POINTS, REMOVE_TIME = 2.0, 0.25, 1.0, 0.01
"""Targets: repair's distance from retraining on either set, and its cost; sentiment accuracy; remove at lane-size 1."""
_ISOLATED = "isolated"
_OWN = ("shards",)
"""Methods that erase some records of an organisation that stays."""

Look = Mapping[str, Any]


@dataclass(frozen=True)
class Measured:
    """All seeds of one task: for each method its looks by seed."""

    name: str
    looks: Mapping[str, Mapping[int, Look]]

    def reference(self, method: str) -> str:
        """The reference of a method: for isolated lanes the remaining ones, which erasing leaves as they were."""
        return "isolated remove" if method.startswith(_ISOLATED) else "retrained"

    def values(self, method: str, figure: "Figure") -> list[float]:
        """A figure for every seed."""
        return [figure(look) for look in self.looks[method].values()]

    def pairs(self, method: str) -> Iterator[tuple[Look, Look]]:
        """Each look with that of every reference of another seed."""
        for seed, look in self.looks[method].items():
            for other, reference in self.looks[self.reference(method)].items():
                if other != seed:  # with its own seed a method shares every batch
                    yield look, reference


@dataclass(frozen=True)
class Figure:
    """A number of a look: the loss of a set, its share of right tokens or answers, or its extraction strength."""

    of: str
    what: str = "loss"

    def __call__(self, look: Look) -> float:
        """Nats per answer token, or percent."""
        found = {name: np.asarray(values) for name, values in look["sets"][self.of].items()}
        tokens = found["tokens"].sum()
        if self.what == "loss":
            return float(found["nats"].sum() / tokens)
        if self.what == "tokens":
            return 100 * float(found["hits"].sum() / tokens)
        spoken = np.maximum(found["tokens"] - 1, 1)  # all but the token that ends an answer
        said = np.minimum(found["tail"], spoken)
        return (
            100 * float((said == spoken).mean())
            if self.what == "answers"
            else metrics.extraction_strength(said, spoken)
        )


def read(folder: Path) -> list[Measured]:
    """The measurements so far, task by task."""
    files = [report.loaded(file) for file in sorted(folder.glob("*.json"))]
    found = []
    for name in TASKS:
        looks: dict[str, dict[int, Look]] = {}
        for file in (file for file in files if file["task"] == name):
            for method, look in file["methods"].items():
                looks.setdefault(method, {})[file["seed"]] = look
        if looks:
            found.append(Measured(name, looks))
    return found


def left_behind(tasks: Sequence[Measured]) -> dict[str, Any]:
    """Losses, accuracies, membership and extraction of every method on every task."""
    rows = []
    for task in tasks:
        for method, looks in task.looks.items():
            if method.startswith(_OWN):
                continue
            rows.append(
                {
                    "task": task.name,
                    "method": method,
                    "seeds": len(looks),
                    "forget loss": _interval(task.values(method, Figure("forget"))),
                    "forget tokens right, percent": _interval(task.values(method, Figure("forget", "tokens"))),
                    "retain loss": _interval(task.values(method, Figure("retain"))),
                    "retain tokens right, percent": _interval(task.values(method, Figure("retain", "tokens"))),
                    "membership AUC": _interval([membership(look) for look in looks.values()]),
                    "extraction strength": _interval(task.values(method, Figure("forget", "extraction"))),
                    "steps over retraining": cost(task, method, "steps"),
                    "time over retraining": cost(task, method, "seconds"),
                }
            )
    return {"methods": rows}


def tofu(tasks: Sequence[Measured]) -> dict[str, Any]:
    """Forget quality and model utility."""
    rows = []
    for task in (task for task in tasks if task.name.startswith("tofu")):
        for method, looks in task.looks.items():
            start = "isolated untouched" if method.startswith(_ISOLATED) else "untouched"
            before, reached = quality(task, start), quality(task, method)
            rows.append(
                {
                    "part": task.name.removeprefix("tofu "),
                    "method": method,
                    "seeds": len(looks),
                    "truth ratio": _interval([float(ratios(look, "forget").mean()) for look in looks.values()]),
                    "forget quality, p": "void" if before is not None and before >= VOID_P else reached,
                    "model utility": _interval([utility(look) for look in looks.values()]),
                }
            )
    return {"void_unless_p_of_untouched_below": VOID_P, "methods": rows} if rows else {}


def planted(tasks: Sequence[Measured]) -> dict[str, Any]:
    """Exposure of the canaries, and whether it is that of canaries in nobody's training."""
    holding = (task for task in tasks if any(look["exposures"] for look in task.looks["retrained"].values()))
    rows = [row for task in holding for row in exposed(task)]
    return {"void_unless_bits_before_reach": VOID_BITS, "methods": rows} if rows else {}


def exposed(task: Measured) -> Iterator[dict[str, Any]]:
    """The exposure after every method of one task."""
    for method, looks in task.looks.items():
        step = SHARDS if method.startswith(_OWN) else 1  # every fourth canary is in the first shard
        bits, never = _exposures(looks, step), _exposures(task.looks["retrained"], step)
        start = method.split()[0] + " untouched" if method.startswith((_ISOLATED, *_OWN)) else "untouched"
        before = fmean(_exposures(task.looks[start], step).values())
        told = "void" if before < VOID_BITS else _unseen(gap(bits, never, UNSEEN_LEVEL))
        yield {
            "task": task.name,
            "method": method,
            "seeds": len(looks),
            "canaries": len(next(iter(looks.values()))["exposures"][::step]),
            "exposure, bits": _interval([*bits.values()]),
            "as never seen": "" if method in {start, "retrained"} else told,
        }


def later(folder: Path) -> dict[str, Any]:
    """The loss on the erased records after training on them again, and after further rounds of the others."""
    rows = []
    for (task, method), found in _cells(folder / "later", ("task", "method")).items():
        row = {"task": task, "method": method, "seeds": len(found), "erased": fmean(one["loss"] for one in found)}
        row |= {f"after {n} steps": fmean(one["relearnt"][str(n)] for one in found) for n in RELEARNT}
        row["after 5 more rounds"] = fmean(one["resurfaced"] for one in found)
        rows.append(row)
    return {"forget_loss": rows}


def precision(folder: Path) -> dict[str, Any]:
    """The same adapters on a base in other precisions."""
    rows = []
    for (task, method, base), found in _cells(folder / "precision", ("task", "method", "precision")).items():
        looks = [one["look"] for one in found]
        row = {"task": task, "method": method, "base": base, "seeds": len(looks)}
        row["forget loss"] = fmean(map(Figure("forget"), looks))
        row["retain loss"] = fmean(map(Figure("retain"), looks))
        row["exposure, bits"] = fmean(np.mean(look["exposures"]) for look in looks) if looks[0]["exposures"] else ""
        rows.append(row)
    return {"forget_loss": rows}


def targets(tasks: Sequence[Measured]) -> dict[str, Any]:
    """The targets, and the distance of each task from them."""
    rows: list[dict[str, Any]] = []
    for task in tasks:
        if "repair" not in task.looks:
            continue
        for of in ("forget", "retain"):
            name = f"repair, {of} loss: standard deviations from retraining"
            rows.append(_target(task, name, abs(deviations(task, "repair", Figure(of))), REPAIR_DEVIATIONS))
        rows.append(_target(task, "repair, steps over retraining", cost(task, "repair", "steps"), REPAIR_COST))
        if (alone := "isolated remove") in task.looks:
            rows.append(_target(task, f"{alone}, time over retraining", cost(task, alone, "seconds"), REMOVE_TIME))
        if task.name.startswith("sentiment"):
            for method in ("remove", "repair"):
                for of, whose in (
                    ("unseen", "texts of the erased organisation's kind"),
                    ("others", "texts of the others' kind"),
                ):
                    figure = Figure(of, "answers")
                    gap = fmean(task.values(method, figure)) - fmean(task.values(task.reference(method), figure))
                    rows.append(
                        _target(
                            task, f"{method}, accuracy on {whose}: points from retraining", abs(gap), ACCURACY_POINTS
                        )
                    )
    return {"targets": rows}


def sentiment(tasks: Sequence[Measured]) -> dict[str, Any]:
    """Accuracy on held-out texts of the erased organisation's kind and of the others'."""
    rows = [
        {
            "erased": task.name.removeprefix("sentiment, "),
            "method": method,
            "seeds": len(looks),
            "accuracy on the erased's kind, percent": _interval(task.values(method, Figure("unseen", "answers"))),
            "accuracy on the others', percent": _interval(task.values(method, Figure("others", "answers"))),
        }
        for task in tasks
        if task.name.startswith("sentiment")
        for method, looks in task.looks.items()
    ]
    return {"methods": rows}


def membership(look: Look) -> float:
    """AUC of the loss per token: the erased records against others of their kind in nobody's training."""
    rates = [np.divide(look["sets"][name]["nats"], look["sets"][name]["tokens"]) for name in ("forget", "unseen")]
    return metrics.membership_auc(*rates)


def ratios(look: Look, name: str) -> metrics.Float64:
    """Truth ratios of a set's questions."""
    found = look["truths"][name]
    return metrics.truth_ratio(_rates(found["paraphrase"]), [_rates(wrong) for wrong in found["wrong"]])


def quality(task: Measured, method: str) -> float | None:
    """Median p over all pairs with a reference of another seed; of the references, over all pairs of them."""
    if method not in task.looks:
        return None
    found = task.pairs(method)
    if method == task.reference(method):
        found = combinations(task.looks[method].values(), 2)
    values = [metrics.forget_quality(ratios(one, "forget"), ratios(other, "forget")) for one, other in found]
    return median(values) if values else None


def utility(look: Look) -> float:
    """Harmonic mean of probability and truth on retained questions, real authors and world facts; without ROUGE."""
    parts = []
    for name in ("retain", "authors", "world"):
        found = look["truths"][name]
        if name == "retain":
            parts.append(float(np.exp(-np.array(_rates(found["right"]))).mean()))
        else:
            right, wrong = ([nats for nats, _ in found["right"]], [[nats for nats, _ in w] for w in found["wrong"]])
            parts.append(float(metrics.chosen_probability(right, wrong).mean()))
        parts.append(float(np.maximum(0, 1 - ratios(look, name)).mean()))
    return metrics.model_utility(parts)


def deviations(task: Measured, method: str, figure: Figure) -> float:
    """The distance of a method's mean from that of the references, in their standard deviations."""
    reference = task.values(task.reference(method), figure)
    spread = float(np.std(reference, ddof=1)) if len(reference) > 1 else float("nan")
    return (fmean(task.values(method, figure)) - fmean(reference)) / spread


def cost(task: Measured, method: str, what: str) -> float:
    """Time or steps over those of retraining under the same seed: the median over seeds."""
    looks = task.looks[method]
    return float(median(look[what] / task.looks["retrained"][seed][what] for seed, look in looks.items()))


def _interval(values: Sequence[float]) -> str:
    return str(MeanInterval.of(values))


def _exposures(looks: Mapping[int, Look], step: int) -> dict[int, float]:
    """The mean exposure of every so many canaries, by seed."""
    return {seed: float(np.mean(look["exposures"][::step])) for seed, look in looks.items()}


def _unseen(difference: MeanInterval) -> str:
    if not math.isfinite(difference.high):
        return "not measured"
    return "yes" if 0 in difference else "no"


def main() -> None:
    """Write every result with measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=arguments.folder, required=True, help="folder filled by `python -m benchmarks.unlearning`"
    )
    folder = parser.parse_args().work
    tasks = read(folder)
    made = {
        "targets": targets(tasks),
        "methods": left_behind(tasks),
        "tofu": tofu(tasks),
        "canaries": planted(tasks),
        "sentiment": sentiment(tasks),
        "later": later(folder),
        "precision": precision(folder),
    }
    measured = {name: figures for name, figures in made.items() if any(figures.values())}
    for name, figures in measured.items():
        report.write(f"unlearning_{name}", figures, COMMAND, 0)
    sys.stdout.write("".join(f"{task.name}: {len(task.looks['retrained'])} references\n" for task in tasks))


def _cells(folder: Path, names: Sequence[str]) -> dict[tuple[str, ...], list[Any]]:
    """The rows of a folder, together when they have equal values of these names; in the order of tasks and methods."""
    found: dict[tuple[str, ...], list[Any]] = {}
    for file in sorted(folder.glob("*.json")):
        row = report.loaded(file)
        found.setdefault(tuple(row[name] for name in names), []).append(row)
    order = [*TASKS, *METHODS, *PRECISIONS]
    return dict(sorted(found.items(), key=lambda cell: [order.index(name) for name in cell[0]]))


def _rates(answers: Sequence[Sequence[float]]) -> list[float]:
    return [nats / tokens for nats, tokens in answers]


def _target(task: Measured, name: str, measured: float, limit: float) -> dict[str, Any]:
    met = "not measured" if np.isnan(measured) else "yes" if measured <= limit else "no"
    figure = None if np.isnan(measured) else measured
    return {"task": task.name, "target": name, "at most": limit, "measured": figure, "met": met}


if __name__ == "__main__":
    main()
