"""What is served is what the run's files say now, whatever becomes of them while the server runs."""

import shutil
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from console.web import engine as module
from core.storage.state_folder import State
from tests.commands import World
from tests.console.web.served import SECONDS, Served, serving

pytestmark = pytest.mark.chain


@pytest.fixture
def copied(finished: World, tmp_path: Path) -> Iterator[Served]:
    """A server of a copy of the finished run, whose chain nobody asks."""
    for name in ("runs", "settings", "events", "locks"):
        if (finished.state / name).exists():
            shutil.copytree(finished.state / name, tmp_path / "state" / name)
    (tmp_path / "state").chmod(0o700)
    with serving(tmp_path / "state") as found:
        yield found


def folder(served: Served) -> Path:
    return State.at(served.site.state.folder).existing().folder


def test_a_run_that_is_gone_is_an_unknown_model(copied: Served) -> None:
    assert copied.complete().status == 200
    asked = copied.run
    shutil.rmtree(folder(copied))
    assert copied.complete(model=asked).status == 404
    assert copied.ask("GET", f"/runs/{asked}").status == 404
    assert copied.ask("GET", "/").status == 200


def test_a_record_that_is_corrupt_is_told_and_the_server_serves_on(copied: Served) -> None:
    before = copied.complete()
    assert before.status == 200
    record = sorted((folder(copied) / "records").glob("*.json"))[-1]
    whole = record.read_bytes()
    record.unlink()
    record.with_name(record.name.replace("A01", "A02")).write_bytes(whole[:-9])
    found = copied.complete()
    assert found.status == 503
    assert found.json["error"]["type"] == "server_error"
    for page in ("", "/trust", "/lineage", "/erase"):
        assert copied.ask("GET", f"/runs/{copied.run}{page}").status in (200, 500)
    assert copied.ask("GET", "/").status == 200
    record.with_name(record.name.replace("A01", "A02")).unlink()
    record.write_bytes(whole)
    assert copied.complete().json["choices"] == before.json["choices"]


def test_a_genesis_that_is_corrupt_is_told_on_every_page(copied: Served) -> None:
    asked = copied.run
    (folder(copied) / "genesis.json").write_text("{", encoding="utf-8")
    assert "genesis.json" in copied.get("/")
    assert copied.get("/playground")
    assert copied.complete(model=asked).status == 503
    for page in ("", "/trust", "/lineage", "/erase", "/events"):
        assert copied.ask("GET", f"/runs/{asked}{page}").status == 500


def test_what_is_served_follows_the_records(copied: Served) -> None:
    served = copied.complete(provenance=True).json["foedus"]["receipt"]["receipt"]["value"]["aggregate"]
    records = sorted((folder(copied) / "records").glob("*.json"))
    kept = records[-1].read_bytes()
    records[-1].unlink()
    before = copied.complete(provenance=True).json["foedus"]["receipt"]["receipt"]["value"]["aggregate"]
    records[-1].write_bytes(kept)
    again = copied.complete(provenance=True).json["foedus"]["receipt"]["receipt"]["value"]["aggregate"]
    assert served == again != before


def test_a_defect_in_a_pass_is_told_and_others_are_answered_on(copied: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    assert copied.complete().status == 200
    with monkeypatch.context() as patch:
        patch.setattr("llm.decoding.Decoder.step", _broken)
        assert copied.complete().status == 503
    end = time.monotonic() + SECONDS
    while copied.site.engine.open:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert copied.complete().status == 200


def test_a_reload_that_fails_leaves_no_base_behind(copied: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is loaded and answers for nobody would never be given up."""
    assert copied.complete().status == 200
    engine, stamps = copied.site.engine, count()
    with monkeypatch.context() as patch:
        patch.setattr(module, "served_stamp", lambda _run: next(stamps))
        assert "is being written" in copied.complete().json["error"]["message"]
        patch.setattr(module, "served_stamp", lambda _run: "another")
        patch.setattr(module, "subject", _broken)
        assert copied.complete().status == 503
    assert set(engine._decoders) == {served.model for _, _, served in engine._served.values()}
    assert copied.complete().status == 200


def _broken(*_: object) -> None:
    raise OSError("out of memory")


def test_only_named_runs_are_served(finished: World) -> None:
    name = State.at(finished.state).existing().name
    with serving(finished.state, names=(name,)) as server:
        assert [*server.site.runs()] == [name]
    with serving(finished.state, names=("other",)) as server:
        assert server.ask("GET", "/v1/models").json["data"] == []
        assert server.ask("GET", f"/runs/{name}").status == 404
