"""The attacks of the privacy benchmark find members where there are traces of them, and nothing elsewhere."""

import math

import numpy as np
import pytest

from benchmarks import privacy
from benchmarks.privacy import DELTA, POOL, ROUNDS, STEPS, area, found_at, likelihood_ratios, mechanism_of, members, row
from core.genesis import Privacy
from core.privacy import PrivacyPlan

RNG = np.random.default_rng(1)
RUNS = 8
INSIDE = np.array([members(run) for run in range(RUNS)])
HARD = RNG.normal(2.0, 0.5, POOL)
"""How hard every record is, whoever trains on it."""


def losses(gain: float) -> np.ndarray:
    """Losses of runs in which members are easier by `gain`, a fifth of what records differ by."""
    return np.maximum(HARD - gain * INSIDE + RNG.normal(0, 0.05, INSIDE.shape), 0.05)


def test_a_record_is_a_member_in_half_of_the_runs_and_of_each_pair_in_one() -> None:
    assert INSIDE.shape == (RUNS, POOL)
    assert (INSIDE.sum(1) == POOL // 2).all()
    assert (INSIDE[::2] ^ INSIDE[1::2]).all()
    assert not np.array_equal(INSIDE[0], INSIDE[2])


def test_an_area_is_one_for_scores_that_tell_all_and_a_half_for_none() -> None:
    inside = INSIDE[0]
    assert area(inside.astype(float), inside) == 1.0
    assert area(-inside.astype(float), inside) == 0.0
    assert area(np.zeros(POOL), inside) == 0.5
    assert found_at(inside.astype(float), inside) == 1.0
    assert found_at(np.zeros(POOL), inside) == 0.0


def test_likelihood_ratios_find_what_a_threshold_does_not() -> None:
    known = losses(0.1)
    by_ratio = area(likelihood_ratios(known, INSIDE, 0), INSIDE[0])
    assert by_ratio > 0.85
    assert area(-known[0], INSIDE[0]) < 0.65


def test_where_members_are_like_others_nothing_is_found() -> None:
    known = losses(0.0)
    areas = [area(likelihood_ratios(known, INSIDE, target), INSIDE[target]) for target in range(RUNS)]
    assert abs(np.mean(areas) - 0.5) < 0.05


def test_a_target_is_not_among_its_own_shadows() -> None:
    """With itself among them, chance alone would look like a member."""
    known = RNG.normal(2.0, 0.3, INSIDE.shape)
    areas = [area(likelihood_ratios(known, INSIDE, target), INSIDE[target]) for target in range(RUNS)]
    assert np.mean(areas) < 0.55


def test_the_noise_is_that_of_the_plan_and_none_at_infinity() -> None:
    plan = PrivacyPlan(Privacy(3.0, DELTA, 1.0), 0.2, 1.0, STEPS, STEPS * ROUNDS)
    assert mechanism_of(3.0, 0.2)[1] == plan.noise
    assert plan.spent(STEPS * ROUNDS) <= 3.0
    assert mechanism_of(math.inf, 0.2)[1] == 0.0


def test_a_row_has_an_interval_for_each_attack_and_the_bound_of_theory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(privacy, "mechanism_of", lambda epsilon, rate: (1.0, 2.0))
    runs = [{"loss": 2.0, "exposure": 1.5, "losses": list(each)} for each in losses(0.0)]
    found = row(1.0, runs)
    assert found["loss"] == "2 ± 0"
    assert found["bound_tpr_percent"] == pytest.approx(math.e + 100 * DELTA)
    assert row(math.inf, runs)["bound_tpr_percent"] == 100.0
    assert {"threshold_auc", "threshold_tpr_percent", "lira_auc", "lira_tpr_percent"} < found.keys()
