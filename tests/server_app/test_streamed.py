"""What Flower's log says of a round, for whoever streams a run."""

import logging
from pathlib import Path

import pytest

from core.storage.events import EventLog
from server_app.streamed import StreamedEvents
from tests.behaviours.runs import found


def test_rounds_rejections_and_losses_are_told_by_name_and_every_event_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = list[str]()
    monkeypatch.setattr("server_app.streamed.log", lambda level, text, *of: told.append(f"{level} {text % of}"))
    run = found(tmp_path / "runs" / "one").run
    first, second = (o.address for o in run.genesis.organisations[:2])
    names = run.genesis.names
    events = StreamedEvents(tmp_path / "events.jsonl", run)
    events.write("step", doing="waiting")
    events.write("round-started", round=1, rounds=3, asked=[first, second])
    events.write("admitted", organisation=first, loss=1.25)
    events.write("admitted", organisation=second, loss=None)
    events.write("rejected", organisation=second, reason="client-error", detail="DataError: \x1b[2Jno such file")
    events.write("rejected", organisation="0x12", reason="unknown", detail="")
    events.write("late", organisation=first, detail="no answer 6 s after the quorum of round 1")
    events.write(
        "evaluated", round=1, losses={first: {"base": 3.0, "global": 1.0}, second: {"base": 3.0, "global": 2.0}}
    )
    events.write("evaluated", round=2, losses={})
    assert told == [
        f"{logging.INFO} {line}"
        for line in (
            "Round 1 of 3: 2 organisations asked",
            f"{names[first]} trained, loss 1.250",
            f"{names[second]} trained",
            f"{names[second]} rejected: client-error",
            "0x12 rejected: unknown",
            f"{names[first]} late: no answer 6 s after the quorum of round 1",
            "Round 1 evaluated, mean loss 1.500",
            "Round 2 evaluated",
        )
    ]
    assert len(EventLog.read(events.path)[0]) == 9
