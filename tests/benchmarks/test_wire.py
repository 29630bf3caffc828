"""The benchmark of forms trains, sends and counts as the product does."""

from pathlib import Path

import pytest

from benchmarks.agents.federation import RoundSettings
from benchmarks.wire import LARGE, LARGE_BLOCKS, LARGE_RANK, Sending, large_rows, rows
from core.wire import DOWN
from llm.model import Model, ModelSpec, load
from llm.records import Message, Record
from tests.commands import make_base

SETTINGS = RoundSettings(rounds=2, steps=1, batch_size=1, max_length=32)
RECORDS = tuple(Record((Message("user", f"What is {i} and {i}?"),), f"It is {2 * i}.") for i in range(4))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(ModelSpec(str(make_base(tmp_path_factory.mktemp("base"))), "none", 4, 8.0))


@pytest.mark.parametrize("wire", ["fp32", "sparse"])
def test_a_federation_sends_in_its_form_and_its_loss_is_a_number(model: Model, tmp_path: Path, wire: str) -> None:
    found = Sending(model, [RECORDS] * 2, [RECORDS] * 2, wire, 1, SETTINGS, tmp_path).figures()
    assert 0 < found["loss"] < 20
    assert found["up"] < found["both"]
    assert (found["up"] < found["down"]) == (wire == "sparse")
    assert sorted(path.name for path in tmp_path.iterdir()) == (
        ["sparse-1-0", "sparse-1-1"] if wire == "sparse" else []
    )


def test_rows_compare_every_form_with_fp32_of_the_same_seed() -> None:
    measured = {
        (wire, seed): {
            "loss": 2.0 + 0.02 * (wire == "nf4") + seed, "both": 600, "up": 100, "down": 50, "training": 1.0,
            "compressing": 0.01,
        }
        for wire in DOWN
        for seed in (1, 2)
    }  # fmt: skip
    found = {row["wire"]: row for row in rows(measured, (1, 2))}
    assert found["nf4"]["loss_change_percent"].startswith("0.58")
    assert found["fp32"]["loss_change_percent"] == "0 ± 0"
    assert (found["int8"]["up_times"], found["int8"]["down_times"], found["int8"]["compressing_percent"]) == (6, 12, 1)


def test_the_bytes_of_a_large_model_are_counted_of_one_block_alike() -> None:
    found = {row["wire"]: row for row in large_rows(LARGE, 1, 2)}
    # A block of few columns has the same bytes a number as the whole model, but for the names of its layers.
    assert found["int8"]["up_times"] >= 7
    assert found["nf4"]["up_times"] == found["nf4"]["down_times"] >= 14
    assert found["sparse"]["up_times"] >= 60
    assert found["sparse"]["down_times"] >= 14
    numbers = LARGE_BLOCKS * LARGE_RANK * sum(outputs for _, outputs in LARGE.values())
    assert numbers == 43_515_904
