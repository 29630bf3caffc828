"""The numbers of the pictures."""

from itertools import pairwise
from typing import Any

import pytest

from console.web.pictures import curves, lineage
from core.storage.state_folder import State
from tests.commands import World


def report(**losses: list[float | None]) -> dict[str, Any]:
    count = max(map(len, losses.values()), default=0)
    rounds = [
        {"round": i + 1, "losses": {name: row[i] for name, row in losses.items() if row[i] is not None}}
        for i in range(count)
    ]
    return {"rounds": rounds, "base_loss": dict.fromkeys(losses, 4.0)}


def test_losses_begin_with_the_base_and_fall_to_the_right() -> None:
    chart = curves(report(medical=[2.0, 1.0]))
    assert chart
    (curve,) = chart["curves"]
    xs, ys = zip(*curve.dots, strict=True)
    assert list(xs) == sorted(xs)
    assert list(ys) == sorted(ys)  # SVG counts downwards
    assert xs[0] == chart["left"]
    assert xs[-1] == chart["right"]
    assert ys[0] == min(y for y, _ in chart["ticks"])
    assert curve.last == 1.0


def test_a_round_in_which_an_organisation_was_not_measured_has_no_point() -> None:
    chart = curves(report(coding=[2.0, None, 1.0], medical=[None, None, None]))
    assert chart
    assert [len(curve.dots) for curve in chart["curves"]] == [3]


def test_labels_never_lie_on_each_other_and_stay_in_the_picture() -> None:
    chart = curves(report(**{f"organisation {i:02}": [1.0, 0.001 * i] for i in range(12)}))
    assert chart
    heights = sorted(curve.label for curve in chart["curves"])
    assert all(after - before >= 14.9 for before, after in pairwise(heights))
    assert heights[-1] <= chart["bottom"]


@pytest.mark.parametrize("losses", [{}, {"medical": [None]}])
def test_without_measurements_there_is_no_chart(losses: dict[str, list[float | None]]) -> None:
    assert curves(report(**losses)) is None


def test_a_loss_of_zero_everywhere_can_be_drawn() -> None:
    assert curves({"rounds": [{"round": 1, "losses": {"a": 0.0}}], "base_loss": {"a": 0.0}})


@pytest.mark.chain
def test_the_last_round_of_a_lane_is_what_is_served(finished: World) -> None:
    run = State.at(finished.state).existing()
    (lane,) = lineage(run)
    assert [(node["round"], node["state"]) for node in lane["nodes"]] == [(1, "kept"), (2, "served")]
    assert sorted(lane["members"]) == ["coding", "financial", "medical"]
    assert not lane["forks"]


@pytest.mark.chain
def test_every_lane_has_a_picture_of_its_own(composed: World) -> None:
    lanes = lineage(State.at(composed.state).existing())
    assert [[node["state"] for node in lane["nodes"]] for lane in lanes] == [["served"]] * 3
