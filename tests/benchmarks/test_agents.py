"""Real rounds of a tiny model under prices and availability, and the tables that are made of such runs."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from agents.q_function import Action
from benchmarks import report
from benchmarks.agents import market, real, tables
from benchmarks.agents.federation import DOMAINS, DomainMember, RealFederation, RoundSettings
from benchmarks.agents.figures import measured
from benchmarks.agents.real import RealMarket
from benchmarks.in_process import address
from core.intervals import MeanInterval
from core.update import Bid
from llm.model import Model, ModelSpec, load
from tests.commands import make_base
from tests.llm.conftest import question

SCENARIO = real.read_scenario()
SETTINGS = RoundSettings(rounds=10, steps=2, batch_size=2, max_length=32, points=2)
FULL = Bid(2, 8)
ADDRESSES = [address(index) for index in range(8)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(ModelSpec(str(make_base(tmp_path_factory.mktemp("base"))), "none", 8, 16.0, device="cpu"))


def federation(model: Model, seed: int = 1) -> RealFederation:
    records = [question(f"What is {i} and {i}?", f"It is {2 * i}.") for i in range(10)]
    members = tuple(DomainMember(a, DOMAINS[k // 2], tuple(records[: 3 + k])) for k, a in enumerate(ADDRESSES))
    return RealFederation(
        model, members, {name: tuple(records[i : i + 2]) for i, name in enumerate(DOMAINS)}, SETTINGS, seed
    )


def everyone() -> np.ndarray:
    return np.full(8, int(Action.FULL))


def test_a_federation_pays_for_measured_credit_and_an_absent_organisation_does_not_train(model: Model) -> None:
    played = RealMarket(SCENARIO, federation(model), 2002)
    assert sorted(played.kinds) == ["honest"] * 6 + ["noise", "zero"]
    assert sorted(RealMarket(SCENARIO, federation(model), 2003).kinds) == ["copy"] + ["honest"] * 6 + ["last"]
    played.available[1] = [False] + [True] * 7
    outcome = played.step(everyone())
    assert outcome.actions.tolist() == [0] + [3] * 7
    assert outcome.incomes.sum() == pytest.approx(8)
    assert outcome.incomes[0] == outcome.costs[0] == outcome.credit[0] == 0
    assert outcome.losses.mean() == pytest.approx(played.loss)
    zero = list(played.kinds).index("zero")
    assert outcome.credit[zero] == 0
    assert outcome.training[zero] == pytest.approx(federation(model).losses[0][DOMAINS[zero // 2]])


def test_a_round_of_nobody_changes_nothing(model: Model) -> None:
    played = RealMarket(SCENARIO, federation(model), 2002)
    before = played.loss
    outcome = played.step(np.zeros(8, np.int64))
    assert played.loss == before
    assert not outcome.incomes.any()


def test_a_free_rider_without_anybody_to_copy_sends_zeros(model: Model) -> None:
    lonely = federation(model)
    credit = lonely.round({ADDRESSES[3]: FULL}, {ADDRESSES[3]: "copy"})
    assert credit.mean == {ADDRESSES[3]: 0}
    assert lonely.losses[1] == lonely.losses[0]


def test_the_figures_of_a_run_are_those_of_the_market_without_the_regret() -> None:
    runs = market.compare(market.read_market(), 8, range(1, 6))
    found = measured(runs)
    without = measured({name: run for name, run in runs.items() if name != "oracle"})
    rows = {row["policy"]: row for row in found["policies"]}
    assert all("regret_to_oracle" in row for row in rows.values())
    for row in without["policies"]:
        assert row == {name: value for name, value in rows[row["policy"]].items() if name != "regret_to_oracle"}
    assert {row["against"] for row in found["against"]} == rows.keys() - {"oracle", "q-learning"}
    lost = {n: MeanInterval.parse_mean(row["honest_lost_more_than_first_round_share"]) for n, row in rows.items()}
    assert lost["q-learning"] == 0 < lost["all"]


def test_runs_of_a_base_that_speaks_are_kept_by_policy_and_trace_and_make_a_table(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "MEASURED", tmp_path / "measured")
    shutil.copy(report.RESULTS / "agents_fit.json", tmp_path)
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    speaking = real.read_scenario("speaking")
    traces = market.traces_of(speaking, "traces", "test")
    runs = real.runs_of(speaking, federation(model))
    assert list(runs) == [(n, t) for n in ("all", "q-learning", "ucb", "oort") for t in traces]
    run = runs["all", traces[0]]()
    for name in ("all", "q-learning"):
        for trace in traces:
            report.kept("agents", real.key("speaking", name, trace), lambda: run)
    monkeypatch.setattr("sys.argv", ["tables", "--scenario", "speaking"])
    tables.main()
    found = report.figures("agents_speaking")
    assert [row["policy"] for row in found["real"]["policies"]] == ["all", "q-learning"]
    assert found["free-riders and saboteurs"] == []
    assert len(found["loss_by_round"]) == 2 * (1 + speaking.settings["run"]["rounds"])
    RoundSettings(**speaking.settings["training"])


def test_a_free_riders_share_is_relative_to_the_mean_of_the_other_honest() -> None:
    credits = dict(zip(ADDRESSES, (0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, -2.0), strict=True))
    run = {"rider": ADDRESSES[7], "rounds": [{"coding": {"credits": credits}}]}
    assert tables.shares(run) == pytest.approx([-2.0, 0.0, 0.5, 0.5])


def test_a_kind_of_free_rider_has_a_row_once_all_its_traces_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "MEASURED", tmp_path)
    credits = dict(zip(ADDRESSES, (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.25), strict=True))
    run = {"rider": ADDRESSES[7], "rounds": [{"coding": {"credits": credits}}]}
    traces = market.traces_of(SCENARIO, "rides", "traces")
    for trace in traces:
        assert list(tables.ridden("real", SCENARIO)) == []
        report.kept("agents", real.key("real", "ride zero", trace), lambda: run)
    (row,) = tables.ridden("real", SCENARIO)
    assert (row["kind"], row["runs"]) == ("zero", len(traces))
    assert MeanInterval.parse_mean(row["credit_over_honest"]) == pytest.approx(0.25)


def test_negative_credit_is_split_by_domain() -> None:
    own = {
        name: {"change": 0.5, "credits": dict.fromkeys(ADDRESSES, 0.4 if name == "medical" else -0.2)}
        for name in DOMAINS
    }
    run = {"kinds": ["honest"] * 7 + ["zero"], "rounds": [{"actions": [3] * 8, "domains": own}] * 10}
    rows = {row["domain"]: row for row in tables.negative([run])}
    medical = rows["medical"]
    assert medical["rounds"] == 10, "one of the two is a free-rider"
    assert medical["negative_percent"] == 100
    assert medical["where_negative_from_own_domain"] == pytest.approx(100)
    assert medical["where_negative_from_other_domains"] == pytest.approx(-150)
    assert rows["coding"]["rounds"] == 20


def test_tables_need_the_policy_that_others_are_compared_with(monkeypatch: pytest.MonkeyPatch) -> None:
    known = report.known
    monkeypatch.setattr(report, "known", lambda name, key: None if "-all-" in key else known(name, key))
    monkeypatch.setattr("sys.argv", ["tables", "--scenario", "speaking"])
    with pytest.raises(SystemExit, match="agents, speaking: expected every trace of the policy all"):
        tables.main()
