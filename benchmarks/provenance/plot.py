"""Line charts on logarithmic axes as SVG, with nothing but text."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 300, 220, 62, 28, 74
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9")


@dataclass(frozen=True)
class Curve:
    """A line through points (x, y), all above 0."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Panel:
    """Curves over one axis."""

    x: str
    y: str
    curves: tuple[Curve, ...]


def plot(panels: Sequence[Panel]) -> str:
    """The panels side by side, with one vertical range and a legend below; curves of one name have one colour."""
    names = list(dict.fromkeys(curve.name for panel in panels for curve in panel.curves))
    colours = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(names)}
    heights = [y for panel in panels for curve in panel.curves for _, y in curve.points]
    low, high = math.floor(math.log10(min(heights))), math.ceil(math.log10(max(heights)))
    width, height = _LEFT + len(panels) * (_WIDTH + _GAP), _TOP + _HEIGHT + 78
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
        ' font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for i, panel in enumerate(panels):
        lines += _panel(panel, _LEFT + i * (_WIDTH + _GAP), (low, high), colours)
    for i, name in enumerate(names):
        x, y = _LEFT + i * 130, height - 14
        lines.append(f'<rect x="{x}" y="{y - 9}" width="18" height="4" fill="{colours[name]}"/>')
        lines.append(f'<text x="{x + 24}" y="{y}">{escape(name)}</text>')
    return "\n".join([*lines, "</svg>", ""])


def _panel(panel: Panel, left: float, decades: tuple[int, int], colours: dict[str, str]) -> Iterator[str]:
    widths = sorted({x for curve in panel.curves for x, _ in curve.points})
    first, last = math.log10(widths[0]), math.log10(widths[-1])

    def across(x: float) -> float:
        return left + _WIDTH * (math.log10(x) - first) / max(last - first, 1e-9)

    def down(y: float) -> float:
        return _TOP + _HEIGHT * (decades[1] - math.log10(y)) / (decades[1] - decades[0])

    for power in range(decades[0], decades[1] + 1):
        y = down(10.0**power)
        yield f'<line x1="{left}" x2="{left + _WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dddddd"/>'
        yield f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g}</text>'
    for x in widths:
        yield f'<text x="{across(x):.1f}" y="{_TOP + _HEIGHT + 18}" text-anchor="middle">{x:g}</text>'
    yield f'<text x="{left + _WIDTH / 2}" y="{_TOP + _HEIGHT + 38}" text-anchor="middle">{escape(panel.x)}</text>'
    yield f'<text x="{left}" y="{_TOP - 10}">{escape(panel.y)}</text>'
    for curve in panel.curves:
        path = " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y in curve.points)
        yield f'<polyline points="{path}" fill="none" stroke="{colours[curve.name]}" stroke-width="2"/>'
