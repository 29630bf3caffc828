"""`foedus witness`: organisations check their coordinator from their own memory."""

from pathlib import Path

import pytest

from console.backends.children import free_port
from core.storage import jsonl
from core.storage.state_folder import State
from tests.commands import World, foedus

pytestmark = pytest.mark.chain


def test_every_round_that_was_shown_stands_on_the_ledger(finished: World) -> None:
    done = finished.command("witness")
    assert (done.code, done.json["ok"], done.json["failures"], done.json["missing"]) == (0, True, [], [])
    assert set(done.json["rounds"]) == {"coding", "financial", "medical"}
    assert set(done.json["rounds"].values()) == {2}
    assert finished.command("witness", "--organisation", "medical").json["rounds"] == {"medical": 2}


def test_a_round_that_was_shown_otherwise_is_found(finished: World, tmp_path: Path) -> None:
    genesis = State(finished.state).existing().genesis
    path = State(finished.state).witness(genesis.digest, genesis.named("medical").address)
    before = path.read_bytes()
    try:
        shown = [entry for entry in jsonl.read(path) if "shown" in entry][-1]
        path.write_bytes(b"")
        jsonl.append(path, {"shown": shown["shown"] | {"count": 7}})
        done = finished.command("witness", "--organisation", "medical")
        assert done.code == 1
        assert "medical: round 2" in done.json["failures"][0]
    finally:
        path.write_bytes(before)


def test_a_ledger_that_cannot_be_reached_is_said_to_be_so_and_no_round_is_called_missing(finished: World) -> None:
    done = finished.command("witness", "--organisation", "medical", "--chain", f"http://127.0.0.1:{free_port()}")
    assert (done.code, done.json["ok"], done.json["missing"], done.json["failures"]) == (1, False, [], [])
    assert done.json["rounds"] == {"medical": 2}
    assert "127.0.0.1" in done.json["unreachable"]
    plain = foedus("witness", "--state", finished.state, "--chain", f"http://127.0.0.1:{free_port()}")
    assert plain.code == 1
    assert plain.out.startswith("the ledger cannot be reached, so nothing was compared with it: ")


def test_a_coordinator_that_was_caught_is_named_though_the_ledger_cannot_be_reached(finished: World) -> None:
    genesis = State(finished.state).existing().genesis
    path = State(finished.state).witness(genesis.digest, genesis.named("coding").address)
    before = path.read_bytes()
    try:
        jsonl.append(path, {"caught": "round 2: two records"})
        done = finished.command("witness", "--organisation", "coding", "--chain", f"http://127.0.0.1:{free_port()}")
        assert (done.code, done.json["failures"]) == (1, ["coding: round 2: two records"])
        assert done.json["unreachable"]
    finally:
        path.write_bytes(before)


def test_without_a_memory_there_is_nothing_to_check(tmp_path: Path) -> None:
    done = foedus("witness", "--state", tmp_path, "--json")
    assert done.code == 2
    assert "federations none" in done.error
