"""Targets of unlearning."""

from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from typing import Any

from benchmarks.targets.target import Cases, Figures, Row, Target, one


def of_erasure(figures: Figures | None) -> Iterator[Row]:
    """The targets of the unlearning tasks: one row a target, its tasks the cases."""

    def key(row: Mapping[str, Any]) -> tuple[str, float]:
        return row["target"], row["at most"]

    for (claim, limit), some in groupby(sorted(figures["targets"], key=key) if figures else (), key):
        cases = {row["task"]: row["measured"] for row in some if row["measured"] is not None}
        yield Row("unlearning", f"{claim[0].upper()}{claim[1:]}", limit, cases)


def _repaired(name: str) -> Callable[[Figures], Cases]:
    """The size of a figure of `repair`; none where too few seeds tell it."""

    def read(figures: Figures) -> Cases:
        (repair,) = (row for row in figures["methods"] if row["method"] == "repair")
        return {} if repair[name] is None else {"repair": abs(repair[name])}

    return read


TARGETS = (
    *(
        Target(
            "unlearning", f"Repair, {side} loss on a base that speaks: standard deviations from retraining",
            "unlearning_speaking", _repaired(f"{side} loss, deviations"), 2,
        )
        for side in ("forget", "retain")
    ),
    Target(
        "unlearning", "Repair, steps over retraining on a base that speaks", "unlearning_speaking",
        _repaired("steps over retraining"), 0.25, "×",
    ),
    Target(
        "unlearning", "Time of `remove` without the command around it", "unlearning_speed",
        lambda f: {n: v["exclusion_seconds"] for n, v in f.items() if isinstance(v, Mapping)},
        lambda f: f["target_exclusion_seconds"], " s",
    ),
    Target(
        "unlearning", "The same at lane size 1, relative to retraining", "unlearning_speed",
        one("lane size 1", "exclusion_over_retraining"), lambda f: f["target_ratio_at_lane_size_1"], "×",
    ),
)  # fmt: skip
