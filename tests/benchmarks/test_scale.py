"""How a federation grows: the data divide, figures are of rounds, and plain Flower takes the same steps."""

from pathlib import Path

import pytest
from flwr.supercore.object_ref import validate

from benchmarks import plain_flower, scale
from benchmarks.in_process import address
from benchmarks.scale import NF4_BITS, Paper, Part, Point
from core.config import RunConfig
from core.policies import POLICIES, SelectionContext
from core.update import Bid
from llm.data import read_data


def test_the_data_of_a_point_divide_among_its_organisations(tmp_path: Path) -> None:
    point = Point(30, 10, 2, tmp_path)
    point.write_data()
    found = read_data(RunConfig.from_flat(RunConfig().to_flat() | point.settings))
    assert len(found.organisations) == 30
    assert {record.domain for record in found.validation} == {f"kind-{number}" for number in range(scale.LABELS)}


def test_both_sides_ask_as_many_as_a_size_says(tmp_path: Path) -> None:
    for point in scale.points(scale.SIZES, 2, tmp_path):
        config = RunConfig.from_flat(RunConfig().to_flat() | point.settings)
        members = [address(number) for number in range(point.organisations)]
        context = SelectionContext(0, members, 1, Bid(1, 1), fraction=config.fraction, quorum=config.quorum)
        assert len(POLICIES[config.participation](context)) == point.asked
        assert max(int(point.organisations * config.fraction), config.quorum) == point.asked, "FedAvg's own rule"


def test_seconds_of_a_round_are_those_until_its_close_without_the_first() -> None:
    events = [
        {"event": "round-started", "time": 10.0, "round": 1, "asked": ["a"]},
        {"event": "round-closed", "time": 40.0, "round": 1},
        {"event": "round-started", "time": 50.0, "round": 2, "asked": ["a", "b"]},
        {"event": "round-closed", "time": 52.0, "round": 2},
        {"event": "evaluated", "time": 58.0, "round": 2},
        {"event": "round-started", "time": 60.0, "round": 3, "asked": ["a", "b", "c", "d"]},
        {"event": "round-closed", "time": 64.0, "round": 3},
    ]
    assert scale.seconds_of(events, 3.0) == {"asked": 3.0, "seconds_to_first_round": 7.0, "seconds_a_round": 3.0}


def test_a_round_of_messages_is_one_without_the_steps_that_both_sides_train() -> None:
    plain = {"seconds_a_round": 8.0, "training_seconds": 5.0, "trained": 3.0}
    found = scale.compared({"seconds_a_round": 6.0}, plain)
    assert found == {"plain_asked": 3.0, "plain_seconds": 8.0, "ratio": 0.75, "messages_seconds": 1.0}


SIZES = [
    {
        "organisations": count, "server_memory_mib": 100.0 + count / 10, "opening_bytes": 100 + 32 * count,
        "opening_gas": 50_000 + 600 * count, "round_gas": 100_000, "genesis_bytes": 1000 + 170 * count,
        "seconds_to_first_round": 30.0 + count / 100,
    }
    for count in (10, 1000)
]  # fmt: skip
WIRE = {
    "a model of 7 billion parameters": [
        {"wire": "fp32", "up_bytes": 4000, "down_bytes": 4000, "decompress_seconds": 0.0},
        {"wire": "nf4", "up_bytes": 500, "down_bytes": 500, "decompress_seconds": 2.0},
    ]
}
AGGREGATION = {"aggregate_seconds": 4.0, "updates": 2, "update_mb": 1.0, "peak_aggregating_updates": 3.0}
AUDIT = {"processor_seconds": 8.0, "rounds": 2, "organisations": 2, "update_mb": 0.5}


def test_on_paper_each_part_grows_as_it_was_measured_and_the_first_to_break_is_at_the_top() -> None:
    paper = Paper(organisations=10_000, asked=0.1, weights=8e9, outputs=1_000_000, rank=2)
    rows = {row["part"]: row for row in paper.rows(SIZES, WIRE, AGGREGATION, AUDIT)}
    opening = rows["bytes of the transaction that opens the run"]
    assert opening["takes"] == pytest.approx(320_100)
    assert opening["holds_up_to"] == (2**17 - 100) // 32
    assert rows["gas of it"]["takes"] == pytest.approx(6_050_000)
    assert rows["gas of a round's transaction"]["holds_up_to"] == "any number"
    assert rows["bytes of the genesis"]["takes"] == pytest.approx(1_701_000)
    # 2 million numbers, at half a byte each way, to a tenth of the organisations.
    messages = rows["seconds of a round's messages at 1 Gbit/s"]
    assert messages["takes"] == pytest.approx(1000 * 2e6 / 125e6)
    # 2 s for 1,000 numbers, and 2 s for a megabyte of float32.
    summing = rows["seconds to decompress and sum a round's updates, on one core"]
    assert summing["takes"] == pytest.approx(1000 * (4000 + 16))
    assert rows["seconds of a round in an audit, on one core"]["takes"] == pytest.approx(1000 * 4 * 8)
    memory = rows["bytes of the coordinator's memory, the base in NF4 with it"]
    assert memory["takes"] == pytest.approx(3 * 8e6 + 8e9 * NF4_BITS / 8 + 10_000 * 2**20 / 10)
    broken = [row for row in rows.values() if row["of_the_limit"] > 1]
    assert list(rows.values())[: len(broken)] == broken
    assert next(iter(rows.values())) is summing


def test_a_part_above_its_limit_without_any_organisation_holds_for_none() -> None:
    assert Part("memory", 2.0, 0.0, 1.0).row(5) == {
        "part": "memory", "takes": 2.0, "limit": 1.0, "of_the_limit": 2.0, "holds_up_to": 0,
    }  # fmt: skip


def test_the_shapes_on_paper_are_those_of_llama_2_70b() -> None:
    block = sum((8192, 1024, 1024, 8192, 28672, 28672, 8192))
    assert Paper().outputs == 80 * block


def test_the_plain_app_is_one_that_flower_packs(tmp_path: Path) -> None:
    settings = RunConfig.from_flat(RunConfig().to_flat() | Point(4, 2, 2, tmp_path).settings)
    app = plain_flower.stage(tmp_path / "app", settings, tmp_path / "times")
    assert {path.name for path in app.iterdir()} == {"plain.py", "pyproject.toml"}
    for reference in ("plain:server", "plain:client"):
        valid, error = validate(reference, check_module=True, project_dir=app)
        assert valid, error


@pytest.mark.slow
@pytest.mark.chain
def test_a_point_is_measured_on_both_sides(tmp_path: Path) -> None:
    point = Point(4, 2, 2, tmp_path)
    own, plain = point.measured(), point.plain()
    assert own["audited"]
    assert own["asked"] == plain["trained"] == 2
    assert own["server_memory_mib"] > 10
    assert min(own[f"{name}_bytes"] for name in ("update", "genesis", "opening")) > 0
    assert min(own[name] for name in ("seconds_a_round", "opening_gas", "round_gas")) > 0
    assert 0 < plain["training_seconds"] < plain["seconds_a_round"]
