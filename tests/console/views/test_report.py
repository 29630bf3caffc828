"""A run's report: what a record, a receipt and an event each add to it, and the tables for people."""

import shutil
from pathlib import Path

from console.views.report import report, tables
from core.storage.state_folder import State
from tests import federation as f
from tests.console.views.printed import printed
from tests.server_app.clients import Federation, answer


def state_of(federation: Federation) -> State:
    """The state folder of a test's federation, with the event log where a state folder has it."""
    state = State(federation.folder)
    state.events(federation.run.name).parent.mkdir(exist_ok=True)
    shutil.copy(federation.events.path, state.events(federation.run.name))
    return state


def test_a_finished_run_is_completed_with_names_and_losses(tmp_path: Path) -> None:
    federation = Federation.found(tmp_path)
    federation.start()
    result = report(state_of(federation), federation.run)
    assert (result["status"], result["genesis"]) == ("completed", federation.genesis.digest)
    assert result["organisations"] == {name: f.address(name) for name in result["organisations"]}
    assert [entry["round"] for entry in result["rounds"]] == [1, 2]
    assert result["base_loss"] == dict.fromkeys(sorted(f.EXAMPLES), 2.0)
    assert result["final_loss"] == dict.fromkeys(sorted(f.EXAMPLES), 1.0)
    for entry, signed in zip(result["rounds"], federation.run.records(), strict=True):
        assert set(entry["admitted"]) == set(f.EXAMPLES)
        assert (entry["loss"], entry["aggregate"]) == (1.0, signed.value.aggregate)
        assert (entry["rejected"], entry["flagged"], entry["transaction"]) == ([], [], None)


def test_a_run_without_rounds_is_incomplete_until_it_failed(tmp_path: Path) -> None:
    federation = Federation.found(tmp_path)
    assert report(State(tmp_path), federation.run)["status"] == "incomplete"
    federation.events.write("failed", error="the disk is full", exit_code=1)
    result = report(state_of(federation), federation.run)
    assert (result["status"], result["rounds"], result["final_loss"]) == ("failed", [], {})
    text = printed(tables(State(tmp_path), federation.run, result))
    assert "failed" in text
    assert "Adapter" not in text


def test_rejections_and_flags_are_told_by_name(tmp_path: Path) -> None:
    behave = {
        "coding": lambda task: answer(task, examples=10**6),
        "medical": lambda task: answer(task, metrics={"loss": 1.0, "behind": 2.0}),
    }
    federation = Federation.found(tmp_path, rounds=1)
    federation.clients.behave = behave
    federation.start()
    (entry,) = report(state_of(federation), federation.run)["rounds"]
    assert [(r["organisation"], r["reason"]) for r in entry["rejected"]] == [("coding", "inflated-examples")]
    assert entry["flagged"] == [{"organisation": "medical", "behind": 2.0}]


def test_people_get_tables_and_what_to_try_next(tmp_path: Path) -> None:
    federation = Federation.found(tmp_path)
    federation.start()
    result = report(state_of(federation), federation.run)
    text = printed(tables(State(tmp_path), federation.run, result))
    aggregate = result["rounds"][-1]["aggregate"]
    assert f"Adapter  {aggregate}" in text
    assert f"{aggregate[:10]}…{aggregate[-4:]}" in text
    assert "-50.0 %" in text
    assert f"foedus verify {federation.run.name}" in text
