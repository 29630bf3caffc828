"""Real rounds of a tiny model under prices and availability, and the tables that are made of such runs."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.market import Scenario
from agents.table import Action
from benchmarks import agents, agents_fit, agents_real, agents_real_tables
from benchmarks.agents_real import Federation
from benchmarks.agents_world import DOMAINS, Member, Setting, World
from benchmarks.plot import Curve, Panel, plot
from core.canonical import Address
from core.update import Bid
from llm.model import Model, ModelSpec, load
from tests.commands import make_base
from tests.llm.conftest import question

SCENARIO = Scenario.read(agents_real.SCENARIO, agents_fit.read())
SETTING = Setting(rounds=10, steps=2, batch_size=2, max_length=32, points=2)
FULL = Bid(2, 8)
ADDRESSES = [Address(f"0x{k + 1:040x}") for k in range(8)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(ModelSpec(str(make_base(tmp_path_factory.mktemp("base"))), "none", 8, 16.0, "cpu"))


def world(model: Model, seed: int = 1) -> World:
    records = [question(f"What is {i} and {i}?", f"It is {2 * i}.") for i in range(10)]
    members = tuple(Member(a, DOMAINS[k // 2], tuple(records[: 3 + k])) for k, a in enumerate(ADDRESSES))
    return World(model, members, {name: tuple(records[i : i + 2]) for i, name in enumerate(DOMAINS)}, SETTING, seed)


def everyone() -> np.ndarray:
    return np.full(8, int(Action.FULL))


def test_a_federation_pays_for_measured_credit_and_whoever_is_away_does_not_train(model: Model) -> None:
    market = Federation(SCENARIO, world(model), 2002)
    assert sorted(market.kinds) == ["honest"] * 6 + ["noise", "zero"]
    assert sorted(Federation(SCENARIO, world(model), 2003).kinds) == ["copy"] + ["honest"] * 6 + ["last"]
    market.available[1] = [False] + [True] * 7
    outcome = market.step(everyone())
    assert outcome.actions.tolist() == [0] + [3] * 7
    assert outcome.incomes.sum() == pytest.approx(8)
    assert outcome.incomes[0] == outcome.costs[0] == outcome.credit[0] == 0
    assert outcome.losses.mean() == pytest.approx(market.loss)
    zero = list(market.kinds).index("zero")
    assert outcome.credit[zero] == 0
    assert outcome.training[zero] == pytest.approx(world(model).losses[0][DOMAINS[zero // 2]])


def test_a_round_of_nobody_changes_nothing(model: Model) -> None:
    market = Federation(SCENARIO, world(model), 2002)
    before = market.loss
    outcome = market.step(np.zeros(8, np.int64))
    assert market.loss == before
    assert not outcome.incomes.any()


def test_a_rider_who_finds_nobody_to_copy_sends_nothing(model: Model) -> None:
    lonely = world(model)
    credit = lonely.round({ADDRESSES[3]: FULL}, {ADDRESSES[3]: "copy"})
    assert credit.mean == {ADDRESSES[3]: 0}
    assert lonely.losses[1] == lonely.losses[0]


def test_the_figures_of_a_run_are_those_of_the_market_without_the_regret() -> None:
    market = agents.read_market()
    runs = agents.compare(market, 8, range(1, 6), agents.pre_trained(replace(market, settings=_short(market)), 8)[0])
    found = agents.measured(runs, charge=5.0)
    without = agents.measured({name: run for name, run in runs.items() if name != "oracle"}, charge=5.0)
    rows = {row["policy"]: row for row in found["policies"]}
    assert all("regret_to_oracle" in row for row in rows.values())
    for row in without["policies"]:
        assert row == {name: value for name, value in rows[row["policy"]].items() if name != "regret_to_oracle"}
    charged, own = (_mean(rows[f"q-learning {name}"]["total_cost"]) for name in ("charged", "pre-trained"))
    assert charged == pytest.approx(own + 5, rel=1e-3)


def test_a_riders_share_is_of_the_mean_of_the_other_honest() -> None:
    credits = dict(zip(ADDRESSES, (0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, -2.0), strict=True))
    run = {"rider": ADDRESSES[7], "rounds": [{"coding": {"credits": credits}}]}
    assert agents_real_tables.shares(run) == pytest.approx([-2.0, 0.0, 0.5, 0.5])


def test_a_kind_of_rider_is_told_once_all_its_traces_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents_real, "RAW", tmp_path)
    credits = dict(zip(ADDRESSES, (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.25), strict=True))
    run = {"rider": ADDRESSES[7], "rounds": [{"coding": {"credits": credits}}]}
    traces = agents_real.traces_of(SCENARIO, "rides", "traces")
    for trace in traces:
        assert list(agents_real_tables.ridden(SCENARIO)) == []
        agents_real.path_of("ride zero", trace).write_text(json.dumps(run), encoding="utf-8")
    (row,) = agents_real_tables.ridden(SCENARIO)
    assert (row["kind"], row["runs"]) == ("zero", len(traces))
    assert _mean(row["credit_over_honest"]) == pytest.approx(0.25)


def test_negative_credit_is_told_apart_by_slice() -> None:
    own = {
        name: {"change": 0.5, "credits": dict.fromkeys(ADDRESSES, 0.4 if name == "medical" else -0.2)}
        for name in DOMAINS
    }
    run = {"kinds": ["honest"] * 7 + ["zero"], "rounds": [{"actions": [3] * 8, "domains": own}] * 10}
    rows = {row["domain"]: row for row in agents_real_tables.negative([run])}
    medical = rows["medical"]
    assert medical["rounds"] == 10, "one of the two is a free-rider"
    assert medical["negative_percent"] == 100
    assert medical["where_negative_from_own_slice"] == pytest.approx(100)
    assert medical["where_negative_from_other_slices"] == pytest.approx(-150)
    assert rows["coding"]["rounds"] == 20


def test_a_plot_places_points_on_linear_axes() -> None:
    picture = plot([Panel("x", "y", (Curve("a", ((0, 4.1), (5, 5), (10, 5.9))),))], logarithmic=False)
    points = picture.split('polyline points="')[1].split('"')[0].split()
    (x0, y0), (x1, y1), (x2, y2) = (map(float, p.split(",")) for p in points)
    assert math.isclose(x1 - x0, x2 - x1, abs_tol=0.2)
    assert math.isclose(y0 - y1, y1 - y2, abs_tol=0.2)
    assert ">4.5</text>" in picture


def _short(market: Scenario) -> dict[str, Any]:
    return {**market.settings, "traces": {**market.settings["traces"], "train": [1, 2]}}


def _mean(interval: str) -> float:
    return float(interval.split(maxsplit=1)[0])
