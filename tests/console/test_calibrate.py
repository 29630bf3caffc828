"""`foedus calibrate` on a real run."""

import json
from pathlib import Path

import pytest

from core.storage.state_folder import State
from tests.commands import ORGANISATIONS, World, foedus

pytestmark = pytest.mark.chain


@pytest.fixture
def published(tmp_path: Path) -> Path:
    folder = tmp_path / "published"
    folder.mkdir()
    for name in ORGANISATIONS:
        records = [{"question": f"{name} {i}?", "answer": f"{name[:3]} {i * i}"} for i in (20, 21)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return folder


def test_published_records_calibrate_a_run(world: World, published: Path, tmp_path: Path) -> None:
    assert world.inline("--set", "calibration=0").code == 0
    asked = ("--prompt", "coding 3?", "--response", "cod 9")
    assert "constants, not calibrated" in foedus("attribute", *asked, "--state", world.state).out
    result = world.command("calibrate", "--data", published).json
    assert {"run", "aggregate", "method", "weights", "records", "digest"} == set(result)
    assert result["weights"].keys() == {"noise", "score", "familiarity", "certainty"}
    assert result["records"] == 2 * len(ORGANISATIONS)
    signed = State(world.state).existing().calibration
    assert signed is not None
    assert signed.value.digest == result["digest"]
    assert world.command("verify").json["ok"]
    traced = world.command("attribute", *asked, "--evidence", tmp_path / "evidence.json").json
    assert traced["response"]["calibrated"] is True
    if traced["response"]["verdict"] is not None:
        checked = world.command("evidence", tmp_path / "evidence.json").json
        assert checked["ok"]
        assert checked["calibrated"]
    again = world.command("calibrate", "--data", published).json
    assert again["weights"] == result["weights"]


def test_bad_input_is_one_line(finished: World, published: Path, tmp_path: Path) -> None:
    key = tmp_path / "other.key"
    assert foedus("keys", "new", key).code == 0
    done = finished.command("calibrate", "--data", published, "--key", key)
    assert done.code == 2
    assert "expected the key file of the coordinator" in done.err
    (published / "stranger.jsonl").write_text('{"question": "q", "answer": "a"}\n', encoding="utf-8")
    done = finished.command("calibrate", "--data", published)
    assert done.code == 2
    assert "got one of stranger" in done.err
    assert finished.command("calibrate", "--data", tmp_path / "nowhere").code == 2
