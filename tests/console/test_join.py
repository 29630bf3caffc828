"""`foedus join` says what is to be compared, and what comes next."""

from pathlib import Path

from tests.commands import foedus
from tests.console.deployments.founded import founded


def test_a_kit_becomes_a_folder_with_a_request(tmp_path: Path) -> None:
    found = founded(tmp_path)
    done = foedus("join", found.kit_file("medical"), "--out", tmp_path / "own")
    assert done.code == 0, done.err
    assert (tmp_path / "own" / "request.json").exists()
    assert found.key().address in done.out
    assert f"foedus signer {tmp_path}/own/signer" in done.out
    assert "expected no such folder yet" in foedus("join", found.kit_file("medical"), "--out", tmp_path / "own").error


def test_what_is_no_kit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kit.json").write_text("[]")
    assert "malformed join kit" in foedus("join", tmp_path / "kit.json").error
    assert "expected a kit" in foedus("join", tmp_path / "nowhere.json").error
