"""What a sweep found: a table of its trials, the best by the figure that was asked for, as JSON and CSV."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import RenderableType

from console.sweeps.plan import Settings, Sweep, Trial, words
from console.sweeps.trials import folder, last_line, result_of, validation_losses
from console.views.tables import table
from core.intervals import MeanInterval


@dataclass(frozen=True)
class Outcome:
    """How a trial ended; `figures` by name, those that it has; `losses` on the validation set by round."""

    trial: Trial
    status: str
    figures: Mapping[str, float]
    losses: Mapping[int, float]
    detail: str = ""

    @classmethod
    def of(cls, out: Path, trial: Trial, status: str) -> "Outcome":
        """Read a trial's folder."""
        place = folder(out, trial.name)
        losses, _ = validation_losses(place / "state")
        if (result := result_of(out, trial)) is None:
            return cls(trial, status, {}, losses, last_line(place / "log") if status == "failed" else "")
        figures = {"seconds": float(result["seconds"])}
        if final := list(result["final_loss"].values()):
            figures |= {"final-loss": fmean(final), "worst-loss": max(final)}
        if losses:
            figures["validation-loss"] = losses[max(losses)]
        return cls(trial, "done", figures, losses)


@dataclass(frozen=True)
class Combination:
    """The trials that differ in the seed alone, and the mean of the figure over those that are done."""

    varied: Settings
    outcomes: tuple[Outcome, ...]
    found: MeanInterval | None

    @property
    def label(self) -> str:
        """The settings in which it differs from others, in words."""
        return words(self.varied) or "as the file has it"

    @property
    def ended(self) -> str:
        """How many of its trials ended how."""
        return ", ".join(f"{count} {status}" for status, count in Counter(one.status for one in self.outcomes).items())


def rows_of(sweep: Sweep, outcomes: Sequence[Outcome]) -> list[Combination]:
    """One row for each combination of settings, in the order of the trials."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(repr(outcome.trial.varied), []).append(outcome)
    found = []
    for some in groups.values():
        values = [one.figures[sweep.figure] for one in some if sweep.figure in one.figures]
        found.append(Combination(some[0].trial.varied, tuple(some), MeanInterval.of(values) if values else None))
    return found


def best_of(rows: Sequence[Combination]) -> Combination | None:
    """The row with the lowest mean among those of which every seed is done; None without one."""
    whole = [row for row in rows if row.found and all(one.status == "done" for one in row.outcomes)]
    return min(whole, key=lambda row: row.found.mean if row.found else 0.0, default=None)


def to_dict(sweep: Sweep, rows: Sequence[Combination]) -> dict[str, Any]:
    """The JSON of `foedus sweep --json`."""
    best = best_of(rows)
    return {
        "figure": sweep.figure,
        "trials": [
            {
                "name": one.trial.name,
                "settings": one.trial.varied | {"seed": one.trial.seed},
                "status": one.status,
                "figures": dict(one.figures),
                **({"detail": one.detail} if one.detail else {}),
            }
            for row in rows
            for one in row.outcomes
        ],
        "best": None
        if best is None or best.found is None
        else {
            "settings": best.varied,
            "mean": best.found.mean,
            # Of one seed nothing is known of the error, and JSON has no infinity.
            "low": best.found.low if len(best.outcomes) > 1 else None,
            "high": best.found.high if len(best.outcomes) > 1 else None,
            "seeds": len(best.outcomes),
        },
    }


def tables(sweep: Sweep, rows: Sequence[Combination], html: Path) -> Iterator[RenderableType]:
    """A row for each combination of settings, and the best."""
    headings = ("settings", "seeds", sweep.figure, "ended")
    lines = [(row.label, len(row.outcomes), row.found, row.ended) for row in rows]
    yield table(f"Sweep of {sum(len(row.outcomes) for row in rows)} runs", headings, lines, headings[1:3])
    for one in (one for row in rows for one in row.outcomes if one.detail):
        yield f"Failed   {one.trial.label}: {one.detail}"
    best = best_of(rows)
    yield (
        f"Best     {best.label}: {sweep.figure} {best.found}"
        if best
        else "Best     none: of no settings every seed is done"
    )
    yield f"Page     {html}"


def write(sweep: Sweep, rows: Sequence[Combination], out: Path) -> dict[str, str]:
    """Write results.json and results.csv; returns their paths by kind."""
    paths = {kind: out / f"results.{kind}" for kind in ("json", "csv")}
    paths["json"].write_text(json.dumps(to_dict(sweep, rows), indent=2) + "\n", encoding="utf-8")
    paths["csv"].write_text(as_csv(rows), encoding="utf-8", newline="")
    return {kind: str(path) for kind, path in paths.items()}


def as_csv(rows: Sequence[Combination]) -> str:
    """A line for each trial: name, status, seed, the settings that vary, the figures, why it failed."""
    outcomes = [one for row in rows for one in row.outcomes]
    varied = sorted({name for row in rows for name in row.varied})
    figures = sorted({name for one in outcomes for name in one.figures})
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["name", "status", "seed", *varied, *figures, "detail"])
    for one in outcomes:
        settings = [one.trial.varied.get(name, "") for name in varied]
        found = [one.figures.get(name, "") for name in figures]
        writer.writerow([one.trial.name, one.status, one.trial.seed, *settings, *found, one.detail])
    return text.getvalue()
