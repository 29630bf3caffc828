"""The page of a sweep."""

import re
from dataclasses import replace

from console.sweeps.page import page
from console.sweeps.plan import Sweep
from console.sweeps.results import Combination, Outcome, rows_of
from tests.console.sweeps.test_results import PLAN, outcomes


def test_it_shows_every_row_every_trial_and_every_curve() -> None:
    html = page("final-loss", rows_of(PLAN, outcomes()))
    assert "Best: rank 4, final-loss 2.2 ± 2.5." in html
    assert html.count("<circle") == 3
    assert html.count("<polyline") == 5
    assert html.count("<tr>") == 7
    assert "no room" in html
    places = [float(x) for x in re.findall(r'<circle class="mark" cx="([\d.]+)"', html)]
    assert places[2] < places[1] < places[0], "lower losses lie further left"


def test_foreign_text_is_escaped() -> None:
    (first, *_), found = rows_of(PLAN, outcomes()), "<script>alert(1)</script>\x1b[31m"
    html = page(
        "final-loss", [replace(first, varied={"base": found}), Combination({}, tuple(outcomes(detail=found)[5:]), None)]
    )
    assert "<script" not in html
    assert "\x1b" not in html
    assert "&lt;script&gt;" in html


def test_without_a_figure_it_says_so() -> None:
    plan = Sweep.parse({})
    html = page("final-loss", rows_of(plan, [Outcome(plan.trials()[0], "failed", {}, {}, "no room")]))
    assert "No trial has this figure." in html
    assert "<svg" not in html


def test_equal_figures_have_a_place() -> None:
    plan = Sweep.parse({"grid": {"rank": [2, 4]}})
    rows = rows_of(plan, [Outcome(t, "done", {"final-loss": 2.0}, {1: 2.0}) for t in plan.trials()])
    assert page("final-loss", rows).count("<circle") == 2
