"""`foedus status`: every field that scripts rely on, and tables for people."""

import pytest

from core.storage import events
from core.storage.events import EventLog
from tests.commands import ORGANISATIONS, World, foedus

pytestmark = pytest.mark.chain


def test_a_run_reports_every_field_that_scripts_rely_on(finished: World) -> None:
    result = finished.command("status").json
    assert result["status"] == "completed"
    assert set(result["organisations"]) == set(ORGANISATIONS)
    assert set(result["base_loss"]) == set(result["final_loss"]) == set(ORGANISATIONS)
    assert [entry["round"] for entry in result["rounds"]] == [1, 2]
    for entry in result["rounds"]:
        assert {"round", "admitted", "rejected", "aggregate", "transaction", "loss"} <= set(entry)
        assert sorted(entry["admitted"]) == list(ORGANISATIONS)
        assert entry["transaction"].startswith("0x")
        assert set(entry["records"]) == set(ORGANISATIONS)
        for records in entry["records"].values():
            assert 0 < records["used"] <= records["read"] <= records["registered"]


def test_status_and_verify_work_when_old_events_were_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MOST_BYTES", 900)
    assert world.inline(rounds=3).code == 0
    log = next((world.state / "events").glob("*.jsonl"))
    assert events.previous(log).exists()
    kept, _ = EventLog.read(log)
    assert not [event for event in kept if event["event"] == "round-started" and event["round"] == 1]
    told = world.command("status").json
    assert (told["status"], len(told["rounds"])) == ("completed", 3)
    assert world.command("verify").json["ok"]
    assert foedus("status", "--watch", "--state", world.state).code == 0
