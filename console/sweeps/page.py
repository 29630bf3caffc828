"""The results of a sweep as one HTML page that loads nothing: the figure by settings, loss by round, every trial."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

import assets
from console.sweeps.results import Combination, best_of
from core.escape import visible

_LEFT, _RIGHT = 330.0, 780.0
"""The ends of the axis, in units of a page 800 wide."""
_ROW = 28
_CURVES = 220.0
_TICKS = 4


def page(figure: str, rows: Sequence[Combination]) -> str:
    """The HTML; everything foreign in it is escaped by the template engine."""

    def plain(value: Any) -> Any:
        return visible(value) if isinstance(value, str) else value

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, finalize=plain)
    template = environment.from_string(assets.page("sweep.html").read_text(encoding="utf-8"))
    best = best_of(rows)
    chosen = f"Best: {best.label}, {figure} {best.found}." if best else "No combination of settings has all its seeds."
    return template.render(figure=figure, best=chosen, rows=rows, **_marks(rows), **_curves(rows))


@dataclass(frozen=True)
class _Axis:
    """From values between two ends to places on a line."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        part = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return round(self.start + min(max(part, 0.0), 1.0) * (self.stop - self.start), 1)


def _marks(rows: Sequence[Combination]) -> dict[str, Any]:
    """A dot and an interval for each row that has the figure; the axis ends at the dots, and intervals are cut."""
    found = [(row.label, row.found) for row in rows if row.found]
    means = [interval.mean for _, interval in found]
    margin = 0.1 * (max(means) - min(means)) if means else 0.0
    axis = _Axis(min(means, default=0.0) - margin, max(means, default=1.0) + margin, _LEFT, _RIGHT)
    steps = [axis.low + index * (axis.high - axis.low) / _TICKS for index in range(_TICKS + 1)]
    return {
        "height": _ROW * len(found) + 30,
        "ticks": [{"x": axis(value), "text": f"{value:.4g}"} for value in steps],
        "marks": [
            {
                "label": label[:46], "text": str(interval), "y": _ROW * index + 14,
                "x": axis(interval.mean), "low": axis(interval.low), "high": axis(interval.high),
            }
            for index, (label, interval) in enumerate(found)
        ],
    }  # fmt: skip


def _curves(rows: Sequence[Combination]) -> dict[str, Any]:
    """A line through the validation losses of each trial."""
    found = [(f"{row.label}, seed {one.trial.seed}", one.losses) for row in rows for one in row.outcomes if one.losses]
    losses = [loss for _, by_round in found for loss in by_round.values()]
    rounds = [number for _, by_round in found for number in by_round]
    across = _Axis(min(rounds, default=0), max(rounds, default=1), 60.0, 790.0)
    up = _Axis(min(losses, default=0.0), max(losses, default=1.0), _CURVES, 10.0)
    return {
        "top": f"{up.high:.4g}", "bottom": f"{up.low:.4g}", "rounds": max(rounds, default=0),
        "curves": [
            {"label": label, "points": " ".join(f"{across(n)},{up(loss)}" for n, loss in sorted(by_round.items()))}
            for label, by_round in found
        ],
    }  # fmt: skip
