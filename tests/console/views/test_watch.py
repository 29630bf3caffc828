"""`foedus status --watch`: a run that goes on, one that has stopped moving, and one that nobody writes."""

import io
import time
from types import SimpleNamespace

import pytest
from rich.console import Console

from console.views import watch
from core.storage.events import EventLog
from core.storage.lock import locked
from core.storage.state_folder import State
from tests import federation as f
from tests.commands import World, foedus

A, B = f.address("medical"), f.address("coding")
NAMES = {A: "medical", B: "coding"}


def at(second: float, event: str, **values: object) -> dict[str, object]:
    return {"event": event, "time": second, **values}


EVENTS = [
    at(0, "round-started", round=1, rounds=3, asked=[A, B]),
    at(7, "admitted", organisation=A, loss=1.0),
    at(9, "rejected", organisation=B, reason="no-reply", detail="nothing came within 9 s", round=1),
    at(10, "round-started", round=2, rounds=3, asked=[A]),
]


def test_each_organisation_has_what_it_was_asked_and_answered_and_its_last_error() -> None:
    found = watch.parts(EVENTS, NAMES)
    medical, coding = found["medical"], found["coding"]
    assert (medical.asked, medical.answered, medical.took, medical.error) == (2, 1, 7, "")
    assert (medical.doing, medical.since) == ("training in round 2", 10)
    assert (coding.asked, coding.answered, coding.took) == (1, 0, None)
    assert coding.error == "rejected in round 1: node-lost: nothing came within 9 s"


def test_an_organisation_that_was_never_asked_is_shown() -> None:
    assert watch.parts([], NAMES)["coding"].doing == "not asked yet"


@pytest.mark.parametrize(
    ("written", "now", "condition"),
    [(True, 11, "running"), (True, 309, "running"), (True, 311, "stalled"), (False, 11, "dead")],
)
def test_running_stalled_and_dead_are_told_apart(written: bool, now: float, condition: str) -> None:
    assert watch.condition(EVENTS, written, now) == condition


def test_a_run_of_slow_rounds_is_not_stalled_as_long_as_it_is_as_slow_as_before() -> None:
    slow = [at(0, "round-started", round=1, rounds=2, asked=[A]), at(900, "admitted", organisation=A, loss=1.0)]
    assert watch.condition(slow, written=True, now=900 + 2600) == "running"
    assert watch.condition(slow, written=True, now=900 + 2800) == "stalled"


@pytest.mark.parametrize(
    ("after", "written", "expected"),
    [
        (["failed"], False, "failed"),
        (["finished"], False, "completed"),
        (["finished", "step", "failed"], False, "completed"),
        (["finished", "attributed"], False, "completed"),
        (["finished", "step"], True, "running"),
        (["finished", "round-started", "failed"], False, "failed"),
        (["finished", "round-started"], False, "dead"),
        (["failed", "round-started", "finished", "failed"], True, "completed"),
    ],
)
def test_what_is_refused_after_the_end_of_a_run_does_not_make_it_fail(
    after: list[str], written: bool, expected: str
) -> None:
    events = [*EVENTS, *(at(11 + second, kind) for second, kind in enumerate(after))]
    assert watch.standing(events, written, now=20) == expected


@pytest.mark.parametrize("terminal", [True, False])
def test_a_run_is_watched_until_it_ends(finished: World, monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    state, run, out = State(finished.state), State(finished.state).existing(), io.StringIO()
    events = EventLog(state.events(run.name))
    before = events.path.read_bytes()
    try:
        with locked(state.lock(run.name)):
            events.write("step", doing="beginning again")

            def go_on(_seconds: float) -> None:
                events.write("round-started", round=3, rounds=3, asked=[run.genesis.organisations[0].address])
                events.write("failed", error="ended", exit_code=1)

            clock = SimpleNamespace(sleep=go_on, time=time.time, monotonic=time.monotonic)
            monkeypatch.setattr(watch, "time", clock)
            console = Console(file=out, force_terminal=terminal, width=150)
            assert watch.watch(state, run, console) == "failed"
    finally:
        events.path.write_bytes(before)
    assert ("1 organisations asked" in out.getvalue()) != terminal
    assert f"Run {run.name}: failed, round 3 of 3" in out.getvalue()


def test_a_dead_run_says_how_to_go_on(finished: World) -> None:
    state, run, out = State(finished.state), State(finished.state).existing(), io.StringIO()
    events = EventLog(state.events(run.name))
    before = events.path.read_bytes()
    try:
        events.write("round-started", round=3, rounds=3, asked=[])
        console = Console(file=out, force_terminal=True, width=150)
        assert watch.watch(state, run, console) == "dead"
    finally:
        events.path.write_bytes(before)
    assert f"foedus run --resume {run.name}" in out.getvalue()
    assert "0 rounds not anchored yet" in out.getvalue()


def test_what_the_coordinator_s_account_holds_is_asked_for_twice_a_minute_and_shown(
    finished: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, out, asked = State(finished.state), io.StringIO(), []
    run = state.existing()
    held = watch.Balance("http://chain.example", run.genesis.coordinator)
    monkeypatch.setattr(watch, "balance", lambda *of: asked.append(of) or 1234.5)
    assert (held(), held()) == (1234.5, 1234.5)
    assert asked == [("http://chain.example", run.genesis.coordinator)]
    console = Console(file=out, width=150)
    for ether in (held(), watch.Balance("embedded", run.genesis.coordinator)()):
        console.print(watch.picture(state, run, [], "running", ether))
    assert out.getvalue().count("The coordinator's account holds 1,234.5000 ether") == 1


@pytest.mark.parametrize("other", ["--json", "--agents"])
def test_watching_is_refused_beside_what_prints_something_else(finished: World, other: str) -> None:
    done = foedus("status", "--watch", other, "--state", finished.state)
    assert (done.code, done.out) == (2, "")
    assert "expected --watch alone, got --json or --agents beside it" in done.err


def test_a_finished_run_is_shown_and_not_waited_for(finished: World) -> None:
    assert foedus("status", "--watch", "--state", finished.state).code == 0
