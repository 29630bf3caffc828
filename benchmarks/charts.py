"""Draws the charts of the result pages from the result files: `python -m benchmarks.charts`.

The same figures give the same bytes: identifiers are salted with a constant, and no date is written.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, StrMethodFormatter

from benchmarks.report import RESULTS, read

FOLDER = Path(__file__).parent.parent / "docs" / "results"
# Okabe and Ito's colours, which also readers with a colour vision deficiency can distinguish; then two greys.
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#000000", "#999999", "#8c6d1f")
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "foedus", "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "axes.grid.axis": "y", "grid.color": "#dddddd",
    "lines.linewidth": 1.6,
}  # fmt: skip


@dataclass(frozen=True)
class Panel:
    """One of several axes side by side: a label for x, and lines of points (x, y) by name."""

    x: str
    lines: Mapping[str, Sequence[tuple[float, float]]]


def draw(panels: Sequence[Panel], y: str, *, logarithmic: bool) -> Figure:
    """The panels with one vertical range and one legend; lines of one name have one colour."""
    names = list(dict.fromkeys(name for panel in panels for name in panel.lines))
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(3.6 * len(panels), 3.6), layout="constrained")
        every = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, panel in zip(every, panels, strict=True):
            for name, points in panel.lines.items():
                axes.plot(*zip(*points, strict=True), label=name, color=_COLOURS[names.index(name) % len(_COLOURS)])
            axes.set_xlabel(panel.x)
            if logarithmic:
                _set_logarithmic(axes, sorted({x for points in panel.lines.values() for x, _ in points}))
        every[0].set_ylabel(y)
        # A panel may lack a line; the legend names each one once.
        handles = {line.get_label(): line for axes in every for line in axes.get_lines()}
        figure.legend(
            handles=list(handles.values()),
            loc="outside lower center",
            ncols=min(len(names), 2 * len(panels) - 1),
            frameon=False,
        )
    return figure


def _set_logarithmic(axes: Axes, sizes: Sequence[float]) -> None:
    """Both axes logarithmic; on x exactly the measured sizes are named."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(sizes)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def svg(figure: Figure) -> str:
    """The figure as an SVG document."""
    buffer = io.StringIO()
    with mpl.rc_context(_STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    # matplotlib ends some lines with a blank.
    return "".join(f"{line.rstrip()}\n" for line in buffer.getvalue().splitlines())


def provenance_growth(figures: Mapping[str, Any]) -> Figure:
    """CPU seconds of each attribution method by organisations, answer tokens and blocks."""
    titles = {"K": "organisations", "T": "answer tokens", "depth": "blocks"}
    panels = []
    for axis, title in titles.items():
        rows = [row for row in figures["growth"] if row["grows"] == axis]
        methods = [name for name in rows[0] if name not in {"grows", "to"}]
        lines = {m: [(row["to"], row[m]) for row in rows if row[m] is not None] for m in methods}
        panels.append(Panel(title, lines))
    return draw(panels, "CPU seconds", logarithmic=True)


def agents_real(figures: Mapping[str, Any]) -> Figure:
    """The mean loss of each policy by rounds and by what they have cost, each point a mean over the traces."""
    titles = {"round": "rounds", "cost_so_far": "cost so far, equal shares of a round's pool"}
    rows = figures["loss_by_round"]
    policies = list(dict.fromkeys(row["policy"] for row in rows))
    return draw(
        [
            Panel(title, {p: [(r[x], r["mean_loss"]) for r in rows if r["policy"] == p] for p in policies})
            for x, title in titles.items()
        ],
        "mean loss, nats",
        logarithmic=False,
    )


def scale(figures: Mapping[str, Any]) -> Figure:
    """Seconds by organisations: until the first round, of an audit, and of a round for each that it asks."""
    titles = {
        "until the first round": ("seconds_to_first_round", None),
        "an audit": ("audit_seconds", None),
        "a round, each asked": ("seconds_a_round", "asked"),
        "the same, plain Flower": ("plain_seconds", "plain_asked"),
    }
    rows = figures["sizes"]
    lines = {
        title: [(row["organisations"], row[name] / (row[by] if by else 1)) for row in rows]
        for title, (name, by) in titles.items()
    }
    return draw([Panel("organisations", lines)], "seconds", logarithmic=True)


CHARTS = {
    "provenance-growth": ("provenance_speed", provenance_growth),
    "agents-real": ("agents_real", agents_real),
    "scale": ("scale", scale),
}
"""By the name of the picture: the result file, and what draws its figures."""


def main() -> None:
    """Draw every chart whose result file is there."""
    for name, (result, chart) in CHARTS.items():
        path = RESULTS / f"{result}.json"
        if path.exists():
            figures = read(path)["figures"]
            (FOLDER / f"{name}.svg").write_text(svg(chart(figures)), encoding="utf-8")


if __name__ == "__main__":
    main()
