"""`foedus export`: an adapter with its lineage in the card; a folder for every lane that is not summed."""

from pathlib import Path

import pytest
from safetensors.numpy import load_file

from core.storage.state_folder import State
from tests.commands import ORGANISATIONS, World

pytestmark = pytest.mark.chain


def test_an_export_carries_its_lineage(finished: World, tmp_path: Path) -> None:
    result = finished.command("export", "--out", tmp_path / "adapter").json
    card = (tmp_path / "adapter" / "README.md").read_text(encoding="utf-8")
    aggregate = finished.command("status").json["rounds"][-1]["aggregate"]
    assert result["path"] == str(tmp_path / "adapter")
    for fact in (*ORGANISATIONS, aggregate, "## Licence", "library_name: peft"):
        assert fact in card


def test_an_export_has_a_folder_for_every_lane(composed: World, tmp_path: Path) -> None:
    kind = State(composed.state).existing().genesis.composition
    result = composed.command("export", "--out", tmp_path / "adapters").json
    assert result["composition"] == kind
    assert sum(one["share"] for one in result["adapters"]) == pytest.approx(1)
    folders = [Path(one["path"]) for one in result["adapters"]]
    assert folders == [tmp_path / "adapters" / f"lane-{lane}" for lane in range(len(ORGANISATIONS))]
    weights = [(folder / "adapter_model.safetensors").read_bytes() for folder in folders]
    assert len(set(weights)) == len(ORGANISATIONS)
    assert all(load_file(folder / "adapter_model.safetensors") for folder in folders)
    way = {"ensemble": "mixes their next-token probabilities", "routing": "answers each prompt with one of them"}[kind]
    assert all(way in (folder / "README.md").read_text(encoding="utf-8") for folder in folders)
