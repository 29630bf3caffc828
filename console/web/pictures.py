"""Pictures of a run as plain numbers, which a template draws as SVG: the losses of its rounds, and its lineage."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from core.canonical import Address
from core.rounds import RoundRecord
from core.storage.run_folder import RunFolder
from provenance.colours import colours

Json = dict[str, Any]

_WIDTH, _HEIGHT = 640, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 120, 12, 28
_GAP = 15
"""Least distance of two labels, in the picture's units."""
_STEP, _ROW = 44, 64
"""Between two rounds, and between two generations, of a lineage."""


class Curve(NamedTuple):
    """A line of a chart: `points` as SVG writes them, `label` the height of its name."""

    name: str
    colour: str
    points: str
    dots: list[tuple[float, float]]
    label: float
    last: float


def curves(report: Mapping[str, Any]) -> Json | None:
    """The losses of a report by round, for each organisation; None before anything was measured."""
    rounds = [entry["round"] for entry in report["rounds"] if entry["losses"]]
    if not rounds:
        return None
    names = sorted({name for entry in report["rounds"] for name in entry["losses"]})
    base: Mapping[str, float] = report["base_loss"]
    measured = {
        name: [(0, base[name])] * (name in base)
        + [(entry["round"], entry["losses"][name]) for entry in report["rounds"] if name in entry["losses"]]
        for name in names
    }
    highest = max(loss for points in measured.values() for _, loss in points) or 1.0
    last = max(rounds)

    def place(number: int, loss: float) -> tuple[float, float]:
        x = _LEFT + (_WIDTH - _LEFT - _RIGHT) * number / last
        return round(x, 1), round(_TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - loss / highest), 1)

    shades = colours([Address(name) for name in names], {Address(name): name for name in names})
    made = []
    for name in names:
        dots = [place(*point) for point in measured[name]]
        points = " ".join(f"{x},{y}" for x, y in dots)
        made.append(Curve(name, shades[Address(name)], points, dots, dots[-1][1], measured[name][-1][1]))
    ticks = [(place(0, highest * part / 4)[1], f"{highest * part / 4:.2f}") for part in range(5)]
    # Every round of a few, else some ten of them.
    steps = range(0, last + 1, max(1, last // 10))
    return {
        "width": _WIDTH, "height": _HEIGHT, "left": _LEFT, "right": _WIDTH - _RIGHT, "bottom": _HEIGHT - _BOTTOM,
        "curves": spread(made), "ticks": ticks, "steps": [(place(number, 0)[0], number) for number in steps],
    }  # fmt: skip


def lineage(run: RunFolder) -> list[Json]:
    """The rounds of each lane, a row for each generation, and where generations fork.

    A round is `served`, `kept` (part of the lane's line), or `left` behind by an erasure.
    """
    records = [signed.value for signed in run.records() if signed.value.admitted]
    return [lane_of(run, lane, [r for r in records if r.lane == lane]) for lane in range(len(run.genesis.lanes))]


def lane_of(run: RunFolder, lane: int, records: Sequence[RoundRecord]) -> Json:
    """The picture of one lane, whose `records` admitted something."""
    names, opened = run.genesis.names, run.generations(lane)
    served = [signed.value.digest for signed in run.served_line(lane)] if run.members(lane) else []
    line = {signed.value.digest for signed in run.lineage(lane)}
    newest = {(r.generation, r.round): r for r in records}
    nodes = [
        {
            "x": _LEFT + _STEP * r.round, "y": _TOP + 20 + _ROW * r.generation, "round": r.round,
            "generation": r.generation, "digest": r.aggregate, "names": [names[a.organisation] for a in r.admitted],
            "state": "served" if served[-1:] == [r.digest] else "kept" if r.digest in line else "left",
        }
        for r in newest.values()
    ]  # fmt: skip
    forks = []
    erased = {signed.value.generation: signed.value for signed in run.erasures() if signed.value.lane == lane}
    for number, signed in opened.items():
        opening = signed.value
        start = {"x": _LEFT + _STEP * opening.parent_round, "y": _TOP + 20 + _ROW * opening.parent_generation}
        who = [names.get(a, a) for a in erased[number].erased] if number in erased else []
        forks.append(start | {"to": _TOP + 20 + _ROW * number, "generation": number, "erased": who})
    last = max((r.round for r in records), default=0)
    width, height = _LEFT + _STEP * (last + 1) + _RIGHT, _TOP + 56 + _ROW * len(opened)
    members = [names[address] for address in run.members(lane)]
    start = {"x": _LEFT, "y": _TOP + 20}
    return {
        "lane": lane, "members": members, "nodes": nodes, "forks": forks, "start": start,
        "generations": len(opened) + 1, "width": width, "height": height,
    }  # fmt: skip


def spread(made: list[Curve]) -> list[Curve]:
    """Curves with labels that lie apart, in order of height."""
    ordered, before = sorted(made, key=lambda curve: curve.label), -float(_GAP)
    found = []
    for curve in ordered:
        before = max(curve.label, before + _GAP)
        found.append(curve._replace(label=before))
    # Labels that were pushed below the axis go up again, the lowest first.
    below = float(_HEIGHT - _BOTTOM)
    for index in reversed(range(len(found))):
        below = min(found[index].label, below)
        found[index] = found[index]._replace(label=below)
        below -= _GAP
    return found
