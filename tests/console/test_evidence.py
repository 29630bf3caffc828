"""`foedus evidence`: a bundle holds alone and against the chain, and does not when it was changed."""

import json
from pathlib import Path

import pytest

from core.storage.state_folder import State
from tests.commands import World
from tests.console.test_attribute import QUESTION

pytestmark = pytest.mark.chain


@pytest.fixture(scope="module")
def bundle(finished: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("evidence") / "evidence.json"
    assert finished.command("attribute", *QUESTION, "--evidence", file).json["evidence"] == str(file)
    return file


def test_evidence_holds_against_a_root_that_the_reader_knows(finished: World, bundle: Path, tmp_path: Path) -> None:
    traced = finished.command("attribute", *QUESTION).json
    genesis = State(finished.state).existing().genesis
    elsewhere = World(finished.base, finished.data, tmp_path / "nothing")
    done = elsewhere.command("evidence", bundle, "--genesis", genesis.digest)
    assert (done.code, done.json["ok"], done.json["consistent"], done.json["failures"]) == (0, True, True, [])
    assert done.json["verdict"] == traced["response"]["verdict"]
    assert done.json["trace"] == traced["digest"]
    assert done.json["rounds"] == [1, 2]
    # A run of that genesis in the state folder is a root, too, and so is a contract that has its rounds.
    assert finished.command("evidence", bundle).json["ok"]
    anchored = finished.command("evidence", bundle, "--address", genesis.chain.contract).json
    assert anchored["ok"]
    assert anchored["transactions"] == [r["transaction"] for r in finished.command("status").json["rounds"]]


def test_evidence_without_a_root_is_consistent_and_shows_nothing(finished: World, bundle: Path, tmp_path: Path) -> None:
    elsewhere = World(finished.base, finished.data, tmp_path / "nothing")
    done = elsewhere.command("evidence", bundle)
    assert (done.code, done.json["ok"], done.json["consistent"]) == (1, False, True)
    assert "nothing shows whose it is" in done.json["failures"][0]
    wrong = elsewhere.command("evidence", bundle, "--genesis", "0x" + "12" * 32)
    assert (wrong.code, wrong.json["ok"], wrong.json["consistent"]) == (1, False, True)
    assert "expected genesis 0x1212" in wrong.json["failures"][0]
    other = finished.command("evidence", bundle, "--address", "0x" + "12" * 20)
    assert (other.code, other.json["ok"]) == (1, False)
    assert elsewhere.command("evidence", bundle, "--genesis", "0x12").code == 2


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
