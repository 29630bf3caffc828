"""TOFU on a base that speaks: four of forty authors are erased from what four organisations taught it together.

Every method is compared with models retrained without the four authors under other seeds. The models of the first seed
are also looked at on the base in other precisions, and trained on the erased records again.

    python -m benchmarks.unlearning.speaking --data DATA [--seeds N]

DATA holds the folder unlearning. A method of a seed is measured once: benchmarks/measured keeps it.
"""

import argparse
from collections.abc import Mapping, Sequence
from functools import cache, cached_property, partial
from itertools import product
from statistics import fmean, median, stdev
from typing import Any

from benchmarks import arguments, report
from benchmarks.in_process import RULE, TrainedRound, fresh_adapter, train_rounds
from benchmarks.speaking import SEEDS
from benchmarks.timing import wall_timed
from benchmarks.unlearning.follow import RELEARNT, in_bfloat16, relearnt
from benchmarks.unlearning.measure import Made, calibration, look, remove, repair, retrained, steps_of
from benchmarks.unlearning.tables import Figure, membership, ratios, utility
from benchmarks.unlearning.tasks import ErasureTask, tofu_authors
from core.adapter import AdapterState
from core.config import RunConfig
from core.intervals import MeanInterval
from llm.model import Model
from llm.sources import base_of_settings
from unlearning import metrics

NAME = "tofu"
"""What benchmarks/measured has it under."""
METHODS = ("untouched", "retrained", "remove", "repair")
TRAINED, OTHERS = "nf4", ("int8", "bf16")
"""The base's precision in training, and those in which the models of the first seed are looked at as well."""
SIDES = ("forget loss", "retain loss")
FIGURES = (*SIDES, "membership AUC", "model utility", "extraction strength")
Found = Mapping[str, Any]


class Seed:
    """The federation under one seed, trained when one of its methods is first asked for."""

    def __init__(self, task: ErasureTask, seed: int) -> None:
        self._task, self._seed = task, seed

    @cached_property
    def _trained(self) -> tuple[list[TrainedRound], float]:
        """The rounds of everybody, and their seconds."""
        model, task = in_precision(TRAINED), self._task
        return wall_timed(lambda: list(train_rounds(model, task.members, task.schedule, self._seed)))

    @cache  # noqa: B019 - a seed lives as long as the process
    def made(self, method: str) -> Made:
        """What a method makes."""
        if method == "retrained":
            return retrained(in_precision(TRAINED), self._task, self._seed)
        rounds, seconds = self._trained
        if method == "untouched":
            return Made(rounds[-1].after, seconds, steps_of(self._task.schedule))
        if method == "remove":
            return remove(self._task, rounds)
        return repair(in_precision(TRAINED), self._task, rounds, self._seed)

    def looked(self, method: str, precision: str = TRAINED) -> dict[str, Any]:
        """The figures of a method's model, on the base in a precision, and what making it took."""
        model, made = in_precision(precision), self.made(method)
        found = look(model, self._adapter(model, method), self._task)
        losses = {f"{side} loss": Figure(side)(found) for side in ("forget", "retain")}
        kept = losses | {
            "membership AUC": membership(found),
            "model utility": utility(found),
            "extraction strength": Figure("forget", "extraction")(found),
            "seconds": made.seconds,
        }
        return {name: round(value, 4) for name, value in kept.items()} | {
            "truth ratios": [round(ratio, 4) for ratio in ratios(found, "forget").tolist()],
            "steps": made.steps,
            "updates": sent(self._task, method),
        }

    def relearnt(self, method: str) -> dict[str, float]:
        """The loss on the erased records while they are trained on again, by the steps."""
        model = in_precision(TRAINED)
        return relearnt(model, self._adapter(model, method), self._task, self._seed)

    def _adapter(self, model: Model, method: str) -> AdapterState:
        return RULE.adapter(self.made(method).state, fresh_adapter(model, self._seed))


def in_precision(precision: str) -> Model:
    """The base in a precision; for bf16 all weights of a model of its own are cast."""
    if precision == "bf16":
        return in_bfloat16(lambda: base_of_settings(RunConfig(quantisation="none")))
    return base_of_settings(RunConfig(quantisation=precision))


def sent(task: ErasureTask, method: str) -> int:
    """The updates that travel for a method."""
    schedules = {"untouched": task.schedule, "retrained": task.without, "repair": calibration(task.without)}
    return sum(map(len, schedules[method].rounds)) if method in schedules else 0


def row(method: str, found: Sequence[Found], references: Sequence[Found]) -> dict[str, Any]:
    """A method over the seeds: its figures, its distances from retraining, and its cost relative to that."""
    return {
        "method": method,
        "seeds": len(found),
        **{name: str(MeanInterval.of([one[name] for one in found])) for name in FIGURES},
        "forget quality, p": quality(found, references),
        **{f"{side}, deviations": deviations(side, found, references) for side in SIDES},
        **{
            f"{what} over retraining": median(a[what] / b[what] for a, b in zip(found, references, strict=False))
            for what in ("steps", "seconds", "updates")
        },
    }


def quality(found: Sequence[Found], references: Sequence[Found]) -> float | None:
    """TOFU's forget quality: the median p over pairs with a reference of another seed."""
    pairs = product(enumerate(found), enumerate(references))
    # With the reference of its own seed a method shares every batch of those that stay.
    apart = [(one, other) for (i, one), (k, other) in pairs if (i < k if found is references else i != k)]
    values = [metrics.forget_quality(one["truth ratios"], other["truth ratios"]) for one, other in apart]
    return median(values) if values else None


def deviations(side: str, found: Sequence[Found], references: Sequence[Found]) -> float | None:
    """The distance of the mean loss from that of the references, in their standard deviations, where they differ."""
    own, theirs = ([one[side] for one in some] for some in (found, references))
    spread = stdev(theirs) if len(theirs) > 1 else 0.0
    return (fmean(own) - fmean(theirs)) / spread if spread else None


def precisions(seed: Seed, number: int) -> list[dict[str, Any]]:
    """A row for each method and precision of the base."""
    rows = []
    for method in METHODS:
        for precision in (TRAINED, *OTHERS):
            key = f"{number}-{method}" + (f"-{precision}" if precision != TRAINED else "")
            found = report.kept(NAME, key, partial(seed.looked, method, precision))
            rows.append({"method": method, "base": precision} | {name: found[name] for name in FIGURES})
    return rows


def relearning(seed: Seed, number: int) -> list[dict[str, Any]]:
    """A row for each method: the loss on the erased records after so many steps on them."""
    rows = []
    for method in METHODS:
        found = report.kept(NAME, f"{number}-{method}-relearnt", partial(seed.relearnt, method))
        rows.append({"method": method} | {f"after {steps} steps": found[f"{steps}"] for steps in RELEARNT})
    return rows


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=arguments.folder, required=True, help="folder with unlearning")
    parser.add_argument("--seeds", type=arguments.count(most=len(SEEDS)), default=3)
    options = parser.parse_args()
    task, found = tofu_authors(options.data), {method: list[Found]() for method in METHODS}
    seeds = {number: Seed(task, number) for number in SEEDS[: options.seeds]}
    figures: dict[str, Any] = {}

    def told() -> None:
        figures["methods"] = [row(method, found[method], found["retrained"]) for method in METHODS]
        report.write(
            "unlearning_speaking",
            figures,
            "python -m benchmarks.unlearning.speaking --data DATA",
            SEEDS[0],
            kept_as=NAME,
        )

    def measure(number: int, method: str) -> None:
        found[method].append(report.kept(NAME, f"{number}-{method}", partial(seeds[number].looked, method)))

    # In this order there are soon distances to tell: a seed of every method, and every reference.
    first, *others = seeds
    for method in METHODS:
        measure(first, method)
    for number in others:
        measure(number, "retrained")
    told()
    figures["relearnt"] = relearning(seeds[first], first)
    told()
    figures["precision"] = precisions(seeds[first], first)
    told()
    for number in others:
        for method in METHODS:
            if method != "retrained":
                measure(number, method)
        told()


if __name__ == "__main__":
    main()
