"""Progress of a run from its event log: bars on a terminal, elsewhere plain lines."""

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from console.views import progress
from console.views.progress import Watcher, watching, working
from core.errors import FoedusError, RunError, UsageError
from core.storage.events import EventLog
from core.storage.state_folder import State
from tests import federation as f
from tests.server_app.clients import Federation
from tests.waiting import PATIENCE_SECONDS, until


@contextmanager
def watched(
    state: Path, *, terminal: bool = False, run: str = "run"
) -> Iterator[tuple[Watcher, EventLog, io.StringIO]]:
    """A watcher of a run, the log that it follows, and what it prints."""
    out = io.StringIO()
    log = EventLog(State(state).events(run))
    log.write("failed", error="an earlier attempt", exit_code=1)
    with watching(Console(file=out, width=120, force_terminal=terminal), State(state), run) as watch:
        yield watch, log, out


def started(log: EventLog, number: int = 1) -> None:
    log.write("round-started", round=number, rounds=2, asked=["0x1", "0x2"])


@pytest.mark.parametrize("terminal", [True, False])
def test_a_watcher_sees_only_what_happens_from_now_on(tmp_path: Path, terminal: bool) -> None:
    with watched(tmp_path, terminal=terminal) as (watch, log, _):
        assert not watch()
        started(log)
        log.write("rejected", organisation="0x2", reason="not-finite", detail="NaN")
        log.write("evaluated", round=1, losses={})
        assert not watch()
        assert watch.progress.tasks[0].completed == 1
        log.write("finished")
        assert watch()
        assert watch.failure is None


@pytest.mark.parametrize(("code", "kind"), [(2, UsageError), (1, RunError)])
def test_a_failure_keeps_its_exit_code(tmp_path: Path, code: int, kind: type[FoedusError]) -> None:
    with watched(tmp_path) as (watch, log, _):
        log.write("failed", error="what went wrong", exit_code=code)
        assert watch()
    assert type(watch.failure) is kind
    assert str(watch.failure) == "what went wrong"


def test_a_terminal_has_bars_and_a_line_for_a_rejection_alone(tmp_path: Path) -> None:
    with watched(tmp_path, terminal=True) as (watch, log, out):
        started(log)
        log.write("admitted", organisation="0x1", loss=2.5)
        log.write("rejected", organisation="0x2", reason="not-finite", detail="NaN \x1b[2J")
        watch()
        watch.progress.refresh()
        text = out.getvalue()
    assert "rounds" in text
    assert "replies" in text
    assert "0/2" in text
    assert "round 1 of 2: 0x2 rejected: not-finite: NaN �[2J" in text
    assert "trained" not in text


def test_elsewhere_there_is_one_line_a_round_and_organisation(tmp_path: Path) -> None:
    with watched(tmp_path) as (watch, log, out):
        for number in (1, 2):
            started(log, number)
            log.write("admitted", organisation="0x1", loss=2.5 / number)
            log.write("rejected", organisation="0x2", reason="not-finite", detail="NaN")
            log.write("evaluated", round=number, losses={"0x1": {"base": 3.0, "global": 2.0}})
        log.write("finished")
        watch()
    assert out.getvalue().splitlines() == [
        "round 1 of 2: 2 organisations asked",
        "round 1 of 2: 0x1 trained, loss 2.500",
        "round 1 of 2: 0x2 rejected: not-finite: NaN",
        "round 1 of 2: evaluated, loss 2.000 (base 3.000)",
        "round 2 of 2: 2 organisations asked",
        "round 2 of 2: 0x1 trained, loss 1.250",
        "round 2 of 2: 0x2 rejected: not-finite: NaN",
        "round 2 of 2: evaluated, loss 2.000 (base 3.000)",
    ]


def test_an_evaluation_without_a_round_before_it_still_says_which_round_it_is_of(tmp_path: Path) -> None:
    with watched(tmp_path) as (watch, log, out):
        log.write("evaluated", round=3, losses={"0x1": {"base": 3.0, "global": 2.0}})
        watch()
    assert out.getvalue().splitlines() == ["round 3: evaluated, loss 2.000 (base 3.000)"]


def test_organisations_go_by_their_names_once_there_is_a_genesis(tmp_path: Path) -> None:
    federation = Federation.create(tmp_path)
    with watched(tmp_path, run=federation.run.name) as (watch, log, out):
        started(log)
        log.write("admitted", organisation=f.address("medical"), loss=2.5)
        log.write("receipt-missing", organisation=f.address("coding"), reason="no-reply", detail="silent")
        log.write("erased", organisation=f.address("coding"), label="exact")
        watch()
    assert out.getvalue().splitlines()[1:] == [
        "round 1 of 2: medical trained, loss 2.500",
        "coding: receipt-missing: silent",
        "erased coding: exact",
    ]


def test_what_takes_a_while_before_the_rounds_is_a_line_elsewhere_and_the_bar_s_on_a_terminal(tmp_path: Path) -> None:
    with watched(tmp_path) as (watch, log, out):
        log.write("step", doing="loading the base smollm2")
        watch()
    assert out.getvalue().splitlines() == ["loading the base smollm2"]
    with watched(tmp_path, terminal=True) as (watch, log, out):
        log.write("step", doing="loading the base \x1b[2J")
        watch()
        watch.progress.refresh()
        text = out.getvalue()
    assert "loading the base �[2J" in text


@pytest.mark.parametrize(("patience", "lines"), [(0.0, ["loading the base � …"]), (60.0, [])])
def test_work_says_what_it_is_once_it_takes_a_while(
    patience: float, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_PATIENCE", patience)
    out = io.StringIO()
    with working("loading the base \x1b", Console(file=out)):
        until(lambda: not lines or out.getvalue().endswith("\n"))
    assert out.getvalue().splitlines() == lines


def test_work_on_a_terminal_has_a_spinner_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    with working("loading the base", Console(file=out, force_terminal=True)):
        pass
    assert "loading the base" in out.getvalue()
    assert out.getvalue().endswith("\x1b[2K")


def test_work_that_fails_says_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    out, timers, Timer = io.StringIO(), list[threading.Timer](), threading.Timer

    def noted(*arguments: Any) -> threading.Timer:
        timers.append(Timer(*arguments))
        return timers[-1]

    monkeypatch.setattr(progress, "_PATIENCE", PATIENCE_SECONDS)
    monkeypatch.setattr(progress.threading, "Timer", noted)
    with pytest.raises(UsageError), working("loading the base", Console(file=out)):
        raise UsageError("no base")
    (timer,) = timers
    assert timer.finished.is_set()
    assert not out.getvalue()


def test_a_run_whose_verdicts_are_not_calibrated_says_why(tmp_path: Path) -> None:
    with watched(tmp_path) as (watch, log, out):
        log.write("uncalibrated", detail="no contributions")
        watch()
    assert "verdicts: uncalibrated: no contributions" in out.getvalue()
