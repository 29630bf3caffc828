"""`foedus export`: an adapter with its lineage in the card; a folder for every lane that is not summed."""

import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from core.storage.state_folder import State
from tests.commands import ORGANISATIONS, World, foedus

pytestmark = pytest.mark.chain


def test_an_export_carries_its_lineage(finished: World, tmp_path: Path) -> None:
    result = finished.command("export", "--out", tmp_path / "adapter").json
    card = (tmp_path / "adapter" / "README.md").read_text(encoding="utf-8")
    aggregate = finished.command("status").json["rounds"][-1]["aggregate"]
    assert result["path"] == str(tmp_path / "adapter")
    for fact in (*ORGANISATIONS, aggregate, "## Licence", "library_name: peft"):
        assert fact in card


def test_a_base_that_moved_is_found_or_named(finished: World, tmp_path: Path) -> None:
    """Beside its old place it is found by its digest; elsewhere --base names it, and another base is refused."""
    beside = finished.base.rename(finished.base.with_name("renamed"))
    try:
        assert finished.command("export", "--out", tmp_path / "found").code == 0
        away = shutil.copytree(beside, tmp_path / "away")
        assert finished.command("export", "--out", tmp_path / "named", "--base", away).code == 0
        wrong = foedus("export", "--out", tmp_path / "wrong", "--state", finished.state, "--base", "foedus-tiny")
        assert (wrong.code, "give its place with --base" in wrong.error) == (2, True)
    finally:
        beside.rename(finished.base)


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


def test_a_merged_export_says_how_far_it_diverges_and_is_a_base_by_itself(finished: World, tmp_path: Path) -> None:
    result = finished.command("export", "--merge", "--out", tmp_path / "merged").json
    assert 0 <= result["divergence"] < 1e-4
    names = {path.name for path in (tmp_path / "merged").iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md"} <= names
    assert "adapter_config.json" not in names


def test_lanes_that_are_served_apart_are_not_merged(composed: World, tmp_path: Path) -> None:
    refused = foedus("export", "--merge", "--out", tmp_path / "merged", "--state", composed.state)
    assert refused.code == 2
    assert f"--merge: expected one adapter, got {len(ORGANISATIONS)} of composition" in refused.error
