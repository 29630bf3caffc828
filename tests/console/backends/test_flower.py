"""Flower's command line: its JSON, and its errors as one line."""

import subprocess
import tomllib
from pathlib import Path

import pytest

from console.backends.flower import FlowerCommand, write_overrides
from core.config import RunConfig
from core.errors import RunError


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("", "flwr list: expected JSON, got no output"),
        ("no such SuperLink\n", "flwr list: expected JSON, got no such SuperLink"),
        ('{"success": false, "error-message": "not here"}', "flwr list failed: not here"),
    ],
)
def test_what_is_no_answer_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str, error: str) -> None:
    flower = FlowerCommand(tmp_path, {})
    monkeypatch.setattr(FlowerCommand, "said", lambda *_: subprocess.CompletedProcess([], 0, said, ""))
    with pytest.raises(RunError, match=error):
        flower.flwr("list")


def test_settings_come_back_from_their_file(tmp_path: Path) -> None:
    config = RunConfig(run="first", base="a\"b'c", learning_rate=0.5, resume=True)
    path = write_overrides(config, tmp_path / "run.toml")
    assert RunConfig.from_flat(tomllib.loads(path.read_text())) == config
