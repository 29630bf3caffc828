"""`foedus evidence`: a bundle holds alone and against the chain, and does not when it was changed."""

import json
from pathlib import Path

import pytest

from tests.commands import World
from tests.console.test_attribute import QUESTION

pytestmark = pytest.mark.chain


@pytest.fixture(scope="module")
def bundle(finished: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("evidence") / "evidence.json"
    assert finished.command("attribute", *QUESTION, "--evidence", file).json["evidence"] == str(file)
    return file


def test_evidence_holds_without_the_run_and_against_the_chain(finished: World, bundle: Path, tmp_path: Path) -> None:
    traced = finished.command("attribute", *QUESTION).json
    elsewhere = World(finished.base, finished.data, tmp_path / "nothing")
    result = elsewhere.command("evidence", bundle).json
    assert result["ok"]
    assert result["verdict"] == traced["response"]["verdict"]
    assert result["trace"] == traced["digest"]
    assert result["rounds"] == [1, 2]
    anchored = finished.command("evidence", bundle, "--chain", "embedded").json
    assert anchored["transactions"] == [r["transaction"] for r in finished.command("status").json["rounds"]]


def test_evidence_of_something_else_does_not_hold(finished: World, bundle: Path, tmp_path: Path) -> None:
    found = json.loads(bundle.read_bytes())
    found["proofs"][0]["proof"]["manifest"]["value"]["tokens"] += 1
    (tmp_path / "changed.json").write_text(json.dumps(found, separators=(",", ":"), sort_keys=True), encoding="utf-8")
    (tmp_path / "torn.json").write_bytes(bundle.read_bytes()[:-9])
    for name in ("changed.json", "torn.json"):
        done = finished.command("evidence", tmp_path / name)
        assert done.code == 1
        assert not done.json["ok"]
        assert done.json["failures"]


def test_evidence_that_is_not_there_is_wrong_usage(finished: World, tmp_path: Path) -> None:
    done = finished.command("evidence", tmp_path / "gone.json")
    assert done.code == 2
    assert "gone.json" in done.error
    assert "`foedus attribute --evidence`" in done.error
