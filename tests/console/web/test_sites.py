"""An organisation's own view: from its memory alone."""

import shutil
from pathlib import Path

import pytest

from chain.observer import observe
from client_app.agreement import keep
from console.web.sites import coordinator, federations, members, site
from core.storage import jsonl
from core.storage.state_folder import State
from tests.commands import World
from tests.console.web.served import Served, serving

pytestmark = pytest.mark.chain


def test_a_site_says_what_left_it_and_what_it_was_shown(finished: World) -> None:
    state = State.at(finished.state)
    run = state.existing()
    assert list(federations(state)) == [run.name]
    assert list(members(state, run.genesis)) == ["coding", "financial", "medical"]
    found = site(state, run.genesis, "medical")
    assert (found["updates"], found["rounds"], found["again"], found["agent"]) == (2, [1, 2], {}, None)
    assert found["shown"] >= 1
    assert found["left"] is None, "a simulation has no log"


def test_the_ledger_says_whether_the_coordinator_behaved(finished: World, tmp_path: Path) -> None:
    state = State.at(finished.state)
    run = state.existing()
    ledger = observe("embedded", state.folder, run.genesis.chain.contract)
    ok, told = coordinator(state, run.genesis, "medical", ledger)
    assert ok, told
    assert "stand on the ledger" in told
    shutil.copytree(finished.state / "witness", tmp_path / "state" / "witness")
    (tmp_path / "state").chmod(0o700)
    other = State.at(tmp_path / "state")
    memory = other.witness(run.genesis.digest, run.genesis.named("medical").address)
    memory.write_bytes(memory.read_bytes().replace(b'"count":3', b'"count":2'))
    ok, told = coordinator(other, run.genesis, "medical", ledger)
    assert not ok
    assert "round 1" in told


def test_a_node_has_no_run_and_a_page_of_its_own(finished: World, tmp_path: Path) -> None:
    run = State.at(finished.state).existing()
    shutil.copytree(finished.state / "witness", tmp_path / "state" / "witness")
    (tmp_path / "state").chmod(0o700)
    keep(run.genesis, State.at(tmp_path / "state").agreed_genesis())  # as a node writes it down
    with serving(tmp_path / "state") as server:
        assert f"/sites/{run.name}" in server.get("/")
        html = server.get(f"/sites/{run.name}")
        assert "Trust map" not in html
        assert "2 <small>signed updates" in html
        for size in (2048, 4096):
            jsonl.append(State.at(tmp_path / "state").sent, {"run": run.name, "what": "train", "bytes": size})
        html = server.get(f"/sites/{run.name}")
        assert "6.1 kB <small>in 2 answers" in html
        assert "6,144" in html
        assert server.post(f"/sites/{run.name}", organisation="nobody").status == 404
        assert "foedus witness --chain" in server.post(f"/sites/{run.name}", organisation="medical").text


def test_one_click_asks_the_ledger(served: Served) -> None:
    found = served.post(f"/sites/{served.run}", organisation="medical")
    assert found.status == 200
    assert ">It behaved<" in found.text
    assert served.ask("GET", "/sites/nobody").status == 404
