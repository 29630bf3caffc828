"""Line charts as SVG, on logarithmic or linear axes, with nothing but text."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 300, 220, 62, 28, 74
_KEY, _LINE = 168, 18
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#000000", "#999999", "#8c6d1f")
_TICKS = 5


@dataclass(frozen=True)
class Curve:
    """A line through points (x, y), all above 0 on logarithmic axes."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Panel:
    """Curves over one axis."""

    x: str
    y: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class _Axis:
    """Where a value lies between the ends of an axis, and which values are named on it."""

    low: float
    high: float
    named: tuple[float, ...]
    logarithmic: bool

    def place(self, value: float) -> float:
        low, high, at = (math.log10(v) if self.logarithmic else v for v in (self.low, self.high, value))
        return (at - low) / max(high - low, 1e-9)


def plot(panels: Sequence[Panel], logarithmic: bool = True) -> str:
    """The panels side by side, with one vertical range and a legend below; curves of one name have one colour."""
    names = list(dict.fromkeys(curve.name for panel in panels for curve in panel.curves))
    colours = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(names)}
    upright = _upright([y for panel in panels for curve in panel.curves for _, y in curve.points], logarithmic)
    width = _LEFT + len(panels) * (_WIDTH + _GAP)
    columns = max(1, (width - _LEFT) // _KEY)
    height = _TOP + _HEIGHT + 60 + _LINE * math.ceil(len(names) / columns)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
        ' font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for i, panel in enumerate(panels):
        lines += _panel(panel, _LEFT + i * (_WIDTH + _GAP), upright, colours)
    for i, name in enumerate(names):
        x, y = _LEFT + i % columns * _KEY, _TOP + _HEIGHT + 64 + _LINE * (i // columns)
        lines.append(f'<rect x="{x}" y="{y - 9}" width="18" height="4" fill="{colours[name]}"/>')
        lines.append(f'<text x="{x + 24}" y="{y}">{escape(name)}</text>')
    return "\n".join([*lines, "</svg>", ""])


def _upright(values: Sequence[float], logarithmic: bool) -> _Axis:
    if logarithmic:
        low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
        return _Axis(10.0**low, 10.0**high, tuple(10.0**power for power in range(low, high + 1)), logarithmic)
    return _linear(values)


def _across(panel: Panel, logarithmic: bool) -> _Axis:
    values = sorted({x for curve in panel.curves for x, _ in curve.points})
    return _Axis(values[0], values[-1], tuple(values), True) if logarithmic else _linear(values)


def _linear(values: Sequence[float]) -> _Axis:
    """From the tick below the least to the one above the most, in steps of 1, 2 or 5 times a power of ten."""
    low, high = min(values), max(values)
    rough = max(high - low, 1e-9) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    named = tuple(step * tick for tick in range(math.floor(low / step), math.ceil(high / step) + 1))
    return _Axis(named[0], named[-1], named, False)


def _panel(panel: Panel, left: float, upright: _Axis, colours: dict[str, str]) -> Iterator[str]:
    level = _across(panel, upright.logarithmic)

    def across(x: float) -> float:
        return left + _WIDTH * level.place(x)

    def down(y: float) -> float:
        return _TOP + _HEIGHT * (1 - upright.place(y))

    for value in upright.named:
        y = down(value)
        yield f'<line x1="{left}" x2="{left + _WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dddddd"/>'
        yield f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>'
    for x in level.named:
        yield f'<text x="{across(x):.1f}" y="{_TOP + _HEIGHT + 18}" text-anchor="middle">{x:g}</text>'
    yield f'<text x="{left + _WIDTH / 2}" y="{_TOP + _HEIGHT + 38}" text-anchor="middle">{escape(panel.x)}</text>'
    yield f'<text x="{left}" y="{_TOP - 10}">{escape(panel.y)}</text>'
    for curve in panel.curves:
        path = " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y in curve.points)
        yield f'<polyline points="{path}" fill="none" stroke="{colours[curve.name]}" stroke-width="2"/>'
