"""The market: the costs and payments of its rounds, and their effect on the loss."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.market import FREE_RIDERS, LearningCurve, Market, Scenario
from agents.q_function import Action
from core.errors import ConfigError, UsageError

ROOT = Path(__file__).parents[2]
CURVE = LearningCurve(
    start=np.array([7.0, 6.0, 6.5, 4.5]),
    floor=np.array([3.0, 2.5, 3.0, 2.5]),
    transfer=0.1 + 0.3 * np.eye(4),
    power=0.5,
    breadth=0.1,
    rounds=10,
)
SCENARIO = Scenario.read(ROOT / "conf" / "agents" / "market.toml", CURVE)


def market(members: int = 32, trace: int = 1, **settings: dict[str, Any]) -> Market:
    changed = {**SCENARIO.settings, **{name: {**SCENARIO.settings[name], **v} for name, v in settings.items()}}
    return Market(replace(SCENARIO, settings=changed), members, trace)


def everyone(members: int) -> np.ndarray:
    return np.full(members, int(Action.FULL))


def test_a_trace_repeats_and_another_is_different() -> None:
    runs = []
    for trace in (5, 5, 6):
        world = market(trace=trace)
        runs.append([world.step(everyone(32)).credit for _ in range(3)])
    assert np.array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_credits_sum_to_the_fall_of_the_mean_loss() -> None:
    world = market(credit={"noise": 0.0}, organisations={"free_riders": 0.0})
    for _ in range(5):
        before = world.loss
        assert world.step(everyone(32)).credit.sum() == pytest.approx(before - world.loss)


def test_a_round_pays_the_pool_to_those_with_positive_credit() -> None:
    outcome = market().step(everyone(32))
    assert outcome.incomes.sum() == pytest.approx(32)
    assert not outcome.incomes[outcome.credit <= 0].any()


def test_free_riders_earn_no_more_than_their_kind_can_and_saboteurs_nothing() -> None:
    earned: dict[str, list[float]] = {}
    for trace in range(1, 6):
        world = market(trace=trace)
        total = sum(world.step(everyone(32)).incomes for _ in range(20))
        for kind in np.unique(world.kinds):
            earned.setdefault(str(kind), []).append(float(total[world.kinds == kind].mean()))
    mean = {kind: float(np.mean(values)) for kind, values in earned.items()}
    assert set(mean) == {"honest", "saboteur", *FREE_RIDERS}
    assert mean["zero"] == mean["last"] == mean["saboteur"] == 0.0
    assert mean["noise"] < 0.1 * mean["honest"]
    assert mean["copy"] < mean["honest"]


def test_saboteurs_harm_the_model() -> None:
    losses = []
    for share in (0.0, 0.2):
        world = market(organisations={"saboteurs": share, "free_riders": 0.0})
        for _ in range(10):
            world.step(everyone(32))
        losses.append(world.loss)
    assert losses[1] > losses[0] + 0.1


def test_whoever_is_away_or_cannot_pay_abstains() -> None:
    world = market(organisations={"budget": [0.1, 0.2]})
    while not world.over:
        away = ~world.available[world.number]
        outcome = world.step(everyone(32))
        assert not outcome.actions[away].any()
        assert (world.spent <= world.budgets).all()
    assert (world.spent > 0).all()
    with pytest.raises(UsageError, match="run is over"):
        world.step(everyone(32))


def test_some_prices_shift_in_mid_run() -> None:
    world = market()
    early, late = (np.array([world.prices(k, number).step for k in range(32)]) for number in (15, 16))
    ratios = late[early > 0] / early[early > 0]
    assert set(np.round(ratios, 6)) == {1.0, 3.0}


def test_free_riders_pay_for_traffic_alone() -> None:
    world = market()
    free_riders = np.isin(world.kinds, FREE_RIDERS)
    costs = world.costs(everyone(32), 1)
    assert costs[free_riders] == pytest.approx(world.traffic_prices[free_riders])
    assert (costs[~free_riders] > world.traffic_prices[~free_riders]).all()


def test_a_preview_is_what_the_round_then_is_worth() -> None:
    world = market(trace=9)
    worth, before = world.preview(everyone(32)), world.loss
    outcome = world.step(everyone(32))
    assert worth == pytest.approx(10.0 * 32 * (before - world.loss) - outcome.costs.sum())


def test_nobody_at_all_changes_nothing() -> None:
    world = market()
    before = world.loss
    outcome = world.step(np.zeros(32, np.int64))
    assert world.loss == before
    assert not outcome.credit.any()
    assert not outcome.incomes.any()
    assert not outcome.costs.any()


def test_a_malformed_curve_or_market_is_refused(tmp_path: Path) -> None:
    good = {"start": [1.0], "floor": [0.5], "transfer": [[1.0]], "power": 0.5, "breadth": 0.0, "rounds": 10}
    assert LearningCurve.from_data(good).loss(np.zeros(1)) == [1.0]
    with pytest.raises(ConfigError, match="malformed learning curve"):
        LearningCurve.from_data({name: good[name] for name in list(good)[:-1]})
    with pytest.raises(ConfigError, match=r"transfer \(1,\)"):
        LearningCurve.from_data(good | {"transfer": [1.0]})
    with pytest.raises(ConfigError, match="market"):
        Scenario.read(tmp_path / "missing.toml", CURVE)
