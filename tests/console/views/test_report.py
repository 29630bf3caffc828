"""A run as one object: its status, rounds and losses, from records, anchors and the event log alone."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from console.views.report import (
    loss_rows,
    rejection_lines,
    report,
    round_remarks,
    served_lines,
    standings,
    tables,
    unmeasured_rows,
)
from core.genesis import Privacy
from core.rounds import RoundRecord
from core.storage.events import EventLog
from core.storage.lock import locked
from core.storage.state_folder import State
from tests.behaviours.runs import Federation, Lies, advance, build, compared, found
from tests.console.views.printed import printed


def evaluated(federation: Federation, number: int, base: float, loss: float) -> None:
    """Write what an evaluation of a round found, the same for everybody."""
    losses = {o.address: {"base": base, "global": loss} for o in federation.genesis.organisations}
    log = EventLog(State(federation.run.folder.parents[1]).events("one"))
    (aggregate,) = {s.value.aggregate for s in federation.run.lineage(0) if s.value.round == number}
    log.write("evaluated", round=number, losses=losses, aggregate=aggregate, validation={"math": loss})


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return build(tmp_path / "runs" / "one", rounds=2, failed={(0, 2): 1})


def told(federation: Federation) -> dict[str, Any]:
    return report(State(federation.run.folder.parents[1]), federation.run)


def test_of_many_the_mean_is_shown_and_those_that_gained_least() -> None:
    base = {f"o{number}": 2.0 for number in range(100)}
    final = {name: 1.0 + 0.01 * index for index, name in enumerate(base)}
    mean, *least = loss_rows(base, final)
    assert mean == ("mean of 100", "2.000", "1.495", "-25.2 %")
    assert [row[0] for row in least[:2]] == ["o99", "o98"]
    assert len(least) == 10
    assert unmeasured_rows(["x"] * 900, 100) == [("900 others", None, None, "not in the sample")]
    assert unmeasured_rows([], 100) == []
    assert loss_rows({"a": 2.0}, {"a": 1.0}) == [("a", "2.000", "1.000", "-50.0 %")]
    assert unmeasured_rows(["b"], 1) == [("b", None, None, "missing: not measured")]


def test_a_run_is_completed_when_every_lane_has_closed_its_last_round(tmp_path: Path) -> None:
    federation = found(tmp_path / "runs" / "one", rounds=2)
    assert told(federation)["status"] == "incomplete"
    advance(federation, 1)
    assert told(federation)["status"] == "incomplete"
    EventLog(State(tmp_path).events("one")).write("failed", error="no", exit_code=1)
    assert told(federation)["status"] == "failed"
    advance(federation, 2)
    assert told(federation)["status"] == "completed"


def test_a_run_that_ended_early_is_completed_and_tells_which_round_it_serves(tmp_path: Path) -> None:
    lies = compared(3.0, 3.5, serve="best", patience=1)
    federation = found(tmp_path / "runs" / "one", rounds=9, lies=lies)
    assert told(federation)["served"] == []
    advance(federation, 1)
    assert told(federation)["status"] == "incomplete"
    advance(federation, 2)
    result = told(federation)
    assert result["status"] == "completed"
    assert result["served"] == [{"lane": 0, "round": 1, "validation_loss": 3.0, "ended_early": True}]
    assert list(served_lines(result["served"])) == ["Served   round 1, validation loss 3.000, training ended early"]


def test_organisations_are_told_by_name(federation: Federation) -> None:
    result = told(federation)
    assert result["organisations"] == {name: key.address for name, key in federation.members.items()}
    assert result["genesis"] == federation.genesis.digest
    assert [set(entry["admitted"]) for entry in result["rounds"]] == [{"coding", "financial"}] * 2


def test_attempts_below_the_quorum_are_told_with_their_reasons(federation: Federation) -> None:
    first, second = told(federation)["rounds"]
    assert first["rejected"] == []
    assert {entry["organisation"] for entry in second["rejected"]} == {"coding", "financial"}
    assert {(entry["reason"], entry["detail"]) for entry in second["rejected"]} == {("no-reply", "nothing came")}


def test_who_was_rejected_and_why_is_told_in_words(federation: Federation) -> None:
    text = printed(tables(State(federation.run.folder.parents[1]), federation.run, told(federation)))
    for name in ("coding", "financial"):
        assert f"Rejected {name} in round 2: no-reply: nothing came\n" in text
    one = {"organisation": "coding", "reason": "not-finite", "detail": "got NaN"}
    rounds = [{"round": number, "rejected": [one, one]} for number in range(1, 21)]
    (line,) = rejection_lines(rounds)
    assert line.startswith("Rejected coding in rounds 1, 2, 3, 4, ")
    assert line.endswith(" and 8 others: not-finite: got NaN")
    many = [{"round": 1, "rejected": [one | {"organisation": f"o{number}"} for number in range(100)]}]
    assert len(list(rejection_lines(many))) == 41


def test_who_was_late_is_told_by_name_and_in_words(tmp_path: Path) -> None:
    def record(federation: Federation, honest: RoundRecord) -> RoundRecord:
        late = honest.admitted[0].organisation
        return replace(honest, late=(late,), grace=6.4) if honest.round == 2 else honest

    federation = build(tmp_path / "runs" / "one", lies=Lies(record=record))
    first, second = told(federation)["rounds"]
    assert (first["late"], first["grace"]) == ([], 0.0)
    assert (len(second["late"]), second["grace"]) == (1, 6.4)
    assert list(round_remarks([first, second])) == [f"Late     in round 2, 6 s after its quorum: {second['late'][0]}"]


def test_what_rounding_loses_is_told_where_states_are_rounded() -> None:
    assert list(round_remarks([])) == list(round_remarks([{"rounding": 0.0, "late": []}])) == []
    rounds = [{"rounding": lost, "late": []} for lost in (0.0, 0.0912, 0.08)]
    (line,) = round_remarks(rounds)
    assert line == "Rounding organisations receive the adapter compressed, up to 9.1 % off; sums are not"


def test_a_round_has_its_transaction_as_soon_as_it_is_anchored(federation: Federation) -> None:
    for entry, signed in zip(told(federation)["rounds"], federation.run.lineage(0), strict=True):
        committed = federation.ledger.read(signed.value.key)
        assert committed is not None
        assert entry["transactions"] == [entry["transaction"]] == [committed[1].transaction]
        assert entry["aggregate"] == signed.value.aggregate


def test_a_round_that_an_erasure_left_behind_is_told_no_more(tmp_path: Path) -> None:
    federation = build(tmp_path / "runs" / "one", rounds=3, organisations=3, failed={(0, 2): 1})
    federation.fork(0, 1, "mathematical")
    assert [(entry["round"], len(entry["admitted"])) for entry in told(federation)["rounds"]] == [(1, 3)]
    advance(federation, 2, {(0, 2): 1})
    federation.fail(0, 1)
    first, second, third = told(federation)["rounds"]
    assert [len(entry["admitted"]) for entry in (first, second, third)] == [3, 2, 0]
    assert [len(entry["rejected"]) for entry in (first, second, third)] == [0, 2, 2], "of the second generation alone"
    assert [len(entry["transactions"]) for entry in (first, second, third)] == [1, 1, 0]


def test_what_was_measured_before_an_erasure_is_told_no_more(tmp_path: Path) -> None:
    federation = build(tmp_path / "runs" / "one", rounds=2, organisations=3)
    log = EventLog(State(federation.run.folder.parents[1]).events("one"))
    everyone = {o.address: {"norm": 1.0, "cosine": 0.5, "factor": 1.0} for o in federation.genesis.organisations}
    for number in (1, 2):
        log.write("judged", lane=0, round=number, updates=everyone)
        evaluated(federation, number, 4.0, 3.0)
    federation.fork(0, 1, "mathematical")
    advance(federation, 2)
    first, second = told(federation)["rounds"]
    assert (first["loss"], second["loss"]) == (3.0, None)
    assert second["aggregate"] == federation.run.lineage(0)[-1].value.aggregate
    assert (len(first["updates"]), set(second["updates"])) == (3, {"coding", "financial"})
    evaluated(federation, 2, 4.0, 2.0)
    assert told(federation)["rounds"][1]["loss"] == 2.0


def test_losses_come_from_the_events(federation: Federation) -> None:
    assert [entry["loss"] for entry in told(federation)["rounds"]] == [None, None]
    evaluated(federation, 1, 4.0, 3.0)
    evaluated(federation, 2, 4.0, 2.0)
    result = told(federation)
    assert [entry["loss"] for entry in result["rounds"]] == [3.0, 2.0]
    assert result["base_loss"] == {"coding": 4.0, "financial": 4.0}
    assert result["final_loss"] == {"coding": 2.0, "financial": 2.0}
    assert result["rounds"][1]["validation"] == {"math": 2.0}


def test_people_see_losses_rounds_and_what_to_try_next(federation: Federation) -> None:
    evaluated(federation, 2, 4.0, 2.0)
    state = State(federation.run.folder.parents[1])
    text = printed(tables(state, federation.run, told(federation)))
    for fact in ("Run one: completed", "coding", "4.000", "2.000", "-50.0 %", "foedus verify one", str(state.folder)):
        assert fact in text


def test_what_to_try_next_names_a_state_folder_that_no_command_would_look_in(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = federation.run.folder.parents[1]
    shown = {}
    for place in (folder, folder / "elsewhere"):
        monkeypatch.setenv("FOEDUS_HOME", str(place))
        shown[place] = printed(tables(State(folder), federation.run, told(federation))).partition("Next: ")[2]
    assert "--state" not in shown[folder]
    assert f"foedus verify one --state {folder} ·" in shown[folder / "elsewhere"]


@pytest.mark.parametrize("deployed", [False, True])
def test_an_unfinished_run_is_offered_to_be_resumed_and_one_that_goes_on_to_be_watched(
    tmp_path: Path, deployed: bool
) -> None:
    federation, state = found(tmp_path / "state" / "runs" / "one", rounds=2), State(tmp_path / "state")
    if deployed:
        (tmp_path / "federation.toml").touch()

    def offered() -> str:
        return printed(tables(state, federation.run, told(federation))).partition("Next: ")[2]

    assert offered().startswith(f"foedus run {f'--federation {tmp_path} ' * deployed}--resume one ")
    with locked(state.lock("one")):
        assert offered().startswith("foedus status --watch one ")
        assert "--resume" not in offered()
    for number in (1, 2):
        advance(federation, number)
    assert "--resume" not in offered()


def test_an_effect_has_a_column_where_it_was_measured() -> None:
    update = {"norm": 2.0, "cosine": 0.5, "factor": 1.0, "effect": None}
    assert "effect" not in printed([standings("Updates", {"coding": update})])
    some = printed([standings("Updates", {"coding": update | {"effect": -0.25}, "medical": update})])
    assert ("-0.250" in some, "–" in some) == (True, True)


def test_an_organisation_that_was_not_measured_is_said_to_be_missing(federation: Federation) -> None:
    assert told(federation)["unmeasured"] == ["coding", "financial"]
    one = next(o for o in federation.genesis.organisations if o.name == "coding")
    log = EventLog(State(federation.run.folder.parents[1]).events("one"))
    aggregate = federation.run.lineage(0)[-1].value.aggregate
    losses = {one.address: {"base": 4.0, "global": 2.0}}
    log.write("evaluated", round=2, losses=losses, aggregate=aggregate, validation={})
    result = told(federation)
    assert (set(result["final_loss"]), result["unmeasured"]) == ({"coding"}, ["financial"])
    text = printed(tables(State(federation.run.folder.parents[1]), federation.run, result))
    (row,) = [line for line in text.splitlines() if "missing: not measured" in line]
    assert "financial" in row
    assert "2.000 (1 of 2)" in text


def test_what_is_spent_of_a_privacy_budget_is_told_over_all_rounds(tmp_path: Path) -> None:
    private = Lies(
        genesis=lambda genesis: replace(genesis, privacy=Privacy(3.0, 1e-5, 1.0)),
        manifest=lambda name, manifest: replace(manifest, epsilon=manifest.round + (name == "coding") / 4),
    )
    federation = build(tmp_path / "runs" / "one", rounds=2, lies=private)
    result = told(federation)
    assert result["privacy"]["spent"] == {"coding": 2.25, "financial": 2.0}
    assert (result["privacy"]["epsilon"], result["privacy"]["delta"]) == (3.0, 1e-5)
    text = printed(tables(State(tmp_path), federation.run, result))
    assert "Privacy  ε spent of 3 at δ 1e-05" in text
    assert "coding 2.25" in text


def test_without_a_privacy_budget_nothing_is_told_of_one(federation: Federation) -> None:
    assert told(federation)["privacy"] is None
