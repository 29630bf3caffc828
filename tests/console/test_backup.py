"""`foedus backup`, on a run; what it copies is read back by `foedus restore`."""

from pathlib import Path

import pytest

from tests.commands import World, foedus
from tests.console.audited import Audited

pytestmark = pytest.mark.chain


def test_a_restored_state_holds_under_audit(finished: World, tmp_path: Path) -> None:
    finished.command("chain stop")
    archive = tmp_path / "state.tar.gz"
    copied = foedus("backup", "--state", finished.state, "--out", archive, "--json").json
    assert (copied["path"], copied["elsewhere"]) == (str(archive), [])
    again = World(finished.base, finished.data, tmp_path / "again")
    restored = foedus("restore", archive, "--out", again.state, "--json").json
    assert (restored["files"], restored["bytes"]) == (copied["files"], copied["bytes"])
    report = again.command("verify").json
    assert report["ok"], report["failures"]
    assert report["recomputed"] == 2
    assert again.command("status").json["rounds"] == finished.command("status").json["rounds"]


def test_a_chain_that_runs_is_not_copied(audited: Audited, tmp_path: Path) -> None:
    done = foedus("backup", "--state", audited.world.state, "--out", tmp_path / "state.tar.gz")
    assert done.code == 2
    assert "expected a database that nobody keeps locked, got" in done.err
    assert "`foedus chain stop`" in done.err


def test_a_folder_of_a_part_is_copied_with_its_state_and_stores_elsewhere_are_named(tmp_path: Path) -> None:
    state = tmp_path / "coordinator" / "state"
    for name, text in {
        "coordinator.toml": "", "state/runs/one/genesis.json": "{}",
        "state/settings/one.json": '{"store":"s3://user:pass-word@bucket"}',
    }.items():  # fmt: skip
        (path := state.parent / name).parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    done = foedus("backup", state.parent, "--out", tmp_path / "b.tar.gz")
    assert done.code == 0, done.err
    assert "Copied   3 files" in done.out
    assert "Missing  the artifacts in s3://bucket: copy these, too" in done.out
    assert "pass-word" not in done.out
