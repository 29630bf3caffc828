"""A target, and the row that says whether it is met."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.report import number

Figures = Mapping[str, Any]
Cases = Mapping[str, float]
"""What was measured, by case."""


@dataclass(frozen=True)
class Target:
    """A bound on a figure; `limit` is a number, or reads one from the figures. `unit` follows the numbers."""

    topic: str
    claim: str
    result: str
    cases: Callable[[Figures], Cases]
    limit: float | Callable[[Figures], float]
    unit: str = ""
    at_least: bool = False

    def row(self, figures: Figures) -> "Row":
        """The target beside what was measured."""
        limit = self.limit(figures) if callable(self.limit) else self.limit
        return Row(
            self.topic, self.claim, limit, self.cases(figures), self.unit, self.at_least, self.result in ON_SMOLLM2
        )


ON_SMOLLM2 = {
    "speaking", "speaking_unseen", "rules", "lds", "records", "provenance_speaking", "provenance_speed_speaking",
    "serving", "node_overhead", "unlearning_speaking", "agents_speaking",
}  # fmt: skip
"""The results that were measured on SmolLM2-135M-Instruct."""


@dataclass(frozen=True)
class Row:
    """A line of the table target / measured / met."""

    topic: str
    claim: str
    limit: float
    cases: Cases = field(default_factory=dict)
    unit: str = ""
    at_least: bool = False
    speaks: bool = False
    """Whether it was measured on a base that speaks."""

    @property
    def bound(self) -> str:
        """The limit as text."""
        return f"{'≥' if self.at_least else '≤'} {number(self.limit)}{self.unit}"

    @property
    def measured(self) -> str:
        """The value farthest from the target, and of how many cases it is the worst."""
        if not self.cases:
            return "not measured"
        case, value = (min if self.at_least else max)(self.cases.items(), key=lambda item: item[1])
        note = f" ({case}; worst of {len(self.cases)})" if len(self.cases) > 1 else ""
        return f"{number(value)}{self.unit}{note}"

    @property
    def met(self) -> str:
        """`yes`, `no`, or in how many cases."""
        if not self.cases:
            return "not measured"
        hits = [value >= self.limit if self.at_least else value <= self.limit for value in self.cases.values()]
        if all(hits):
            return "yes"
        return f"{sum(hits)} of {len(hits)}" if len(hits) > 1 else "no"


def one(*path: str) -> Callable[[Figures], Cases]:
    """The single figure at a path."""

    def read(figures: Figures) -> Cases:
        found: Any = figures
        for name in path:
            found = found[name]
        return {path[-1]: float(found)}

    return read
