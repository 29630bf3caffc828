"""What benchmarks report and keep."""

import json
from pathlib import Path

import pytest

from benchmarks import report


def test_a_seed_is_measured_once_and_kept_with_its_hardware(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MEASURED", tmp_path)
    calls = []

    def measure() -> dict[str, float]:
        calls.append(1)
        return {"loss": 0.5}

    found = [report.kept("rules", "7", measure) for _ in range(2)]
    assert found == [{"loss": 0.5}] * 2
    assert len(calls) == 1
    kept = json.loads((tmp_path / "rules" / "7.json").read_text(encoding="utf-8"))
    assert kept["hardware"]["cores"] >= 1
    assert kept["versions"]["torch"]


def test_a_seed_that_failed_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MEASURED", tmp_path)
    with pytest.raises(ValueError, match="Out of range"):
        report.kept("rules", "7", lambda: {"loss": float("nan")})
    assert not (tmp_path / "rules" / "7.json").exists()
