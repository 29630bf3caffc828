"""`foedus keys`: a key file is made once, outside any checkout, and its secret is never shown."""

import stat
from pathlib import Path

import pytest

from tests.commands import foedus


def test_a_key_is_made_once_and_never_shown(tmp_path: Path) -> None:
    file = tmp_path / "keys" / "hospital"
    made = foedus("keys", "new", file, "--json")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert (
        foedus("keys", "show", file, "--json").json
        == made.json
        == {"address": made.json["address"], "public_key": made.json["public_key"], "file": str(file)}
    )
    assert file.read_text(encoding="ascii").strip() not in made.out + made.err
    assert foedus("keys", "new", file).code == 2


def test_a_key_in_a_checkout_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    done = foedus("keys", "new", tmp_path / "keys" / "mine")
    assert (done.code, list(tmp_path.iterdir())) == (2, [tmp_path / ".git"])
    assert "checkout" in done.error


def test_without_a_file_the_environment_names_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOEDUS_KEY", str(tmp_path / "mine"))
    made = foedus("keys", "new", "--json").json
    assert made["file"] == str(tmp_path / "mine")
    lines = foedus("keys", "show").out.splitlines()
    assert [line.split() for line in lines] == [
        ["Address", made["address"]],
        ["Public", made["public_key"]],
        ["File", made["file"]],
    ]


def test_a_key_is_encrypted_under_a_passphrase_from_a_file(tmp_path: Path) -> None:
    file, passphrase = tmp_path / "hospital", tmp_path / "passphrase"
    passphrase.write_text("correct horse\n")
    passphrase.chmod(0o600)
    made = foedus("keys", "new", file, "--encrypt", "--passphrase-file", passphrase, "--json").json
    assert file.read_text().startswith("{")
    assert foedus("keys", "show", file, "--passphrase-file", passphrase, "--json").json == made
    assert "expected its passphrase, got none" in foedus("keys", "show", file).error


def test_a_passphrase_is_asked_for_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []
    monkeypatch.setattr("typer.prompt", lambda text, **how: asked.append({"text": text, **how}) or "typed")
    assert foedus("keys", "new", tmp_path / "hospital", "--encrypt").code == 0
    assert asked == [{"text": "Passphrase", "hide_input": True, "confirmation_prompt": True, "err": True}]
    assert "typed" not in (tmp_path / "hospital").read_text()
