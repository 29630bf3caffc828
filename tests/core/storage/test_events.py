"""The event log: whole lines, in order, and readable while it is written."""

from pathlib import Path

import pytest

from core.errors import FormatError, RunError
from core.storage import events as events_module
from core.storage.events import EventLog


def test_events_are_read_in_order_with_their_values(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events" / "one.jsonl")
    log.write("first", value=1)
    log.write("second", names=["ü", "\n"])
    events, _ = EventLog.read(log.path)
    assert [(e["event"], e.get("value"), e.get("names")) for e in events] == [
        ("first", 1, None),
        ("second", None, ["ü", "\n"]),
    ]
    assert events[0]["time"] <= events[1]["time"]


def test_a_reader_goes_on_where_it_stopped(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "one.jsonl")
    log.write("first")
    _, offset = EventLog.read(log.path)
    assert EventLog.read(log.path, offset) == ([], offset)
    log.write("second")
    events, _ = EventLog.read(log.path, offset)
    assert [e["event"] for e in events] == ["second"]


def test_a_line_that_is_still_being_written_waits_until_it_is_whole(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "one.jsonl")
    log.write("first")
    with log.path.open("a") as file:
        file.write('{"event": "half')
    events, offset = EventLog.read(log.path)
    assert [e["event"] for e in events] == ["first"]
    with log.path.open("a") as file:
        file.write('", "time": 0}\n')
    assert [e["event"] for e in EventLog.read(log.path, offset)[0]] == ["half"]


def test_a_torn_line_does_not_spoil_the_event_after_it(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "one.jsonl")
    log.write("first")
    with log.path.open("a") as file:
        file.write('{"event": "half')
    log.write("second")
    assert [e["event"] for e in EventLog.read(log.path)[0]] == ["first", "second"]


def test_a_damaged_line_is_passed_over(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "one.jsonl")
    log.path.write_bytes(b"{broken\n")
    log.write("second")
    assert [e["event"] for e in EventLog.read(log.path)[0]] == ["second"]


def test_a_log_that_does_not_exist_has_no_events(tmp_path: Path) -> None:
    assert EventLog.read(tmp_path / "none.jsonl") == ([], 0)


def test_a_log_that_cannot_be_written_is_an_error_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=str(tmp_path / "file" / "one.jsonl")):
        EventLog(tmp_path / "file" / "one.jsonl").write("first")


def test_numbers_that_json_does_not_have_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="not representable as canonical JSON"):
        EventLog(tmp_path / "one.jsonl").write("first", loss=float("nan"))


def numbers(path: Path, offset: int = 0) -> tuple[list[int], int]:
    events, end = EventLog.read(path, offset)
    return [event["number"] for event in events], end


def test_a_log_keeps_no_more_than_two_files_however_long_a_run_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_module, "MOST_BYTES", 1000)
    log = EventLog(tmp_path / "one.jsonl")
    for number in range(200):
        log.write("step", number=number)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.jsonl", "one.jsonl.1"]
    assert all(path.stat().st_size < 1100 for path in tmp_path.iterdir())
    kept, _ = numbers(log.path)
    assert kept == list(range(kept[0], 200))
    assert len(kept) > 15


@pytest.mark.parametrize("every", [1, 7, 15])
def test_a_reader_misses_nothing_and_sees_nothing_twice_when_files_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    monkeypatch.setattr(events_module, "MOST_BYTES", 1000)
    log, seen, offset = EventLog(tmp_path / "one.jsonl"), list[int](), 0
    for number in range(150):
        log.write("step", number=number)
        if number % every == every - 1:
            new, offset = numbers(log.path, offset)
            seen += new
    assert seen == list(range(150 - 150 % every))


def test_a_reader_that_comes_while_files_change_reads_the_rest_later(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "one.jsonl")
    log.write("step", number=1)
    _, offset = numbers(log.path)
    log.write("step", number=2)
    log.path.replace(events_module.previous(log.path))  # and the writer has not gone on yet
    assert numbers(log.path, offset) == ([], offset)
    before = events_module.previous(log.path).stat().st_size
    log.path.write_text(f'{{"event":"continued","time":0,"before":{before}}}\n')
    assert numbers(log.path, offset)[0] == [2]


def test_an_event_that_calls_itself_the_first_is_one_like_others(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "one.jsonl")
    log.write("step", number=1)
    log.write("step", number=2, before=10**6)
    assert numbers(log.path)[0] == [1, 2]


def test_a_file_that_is_set_aside_between_two_reads_is_not_read_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = EventLog(tmp_path / "one.jsonl")
    log.write("step", number=1)
    log.path.replace(events_module.previous(log.path))
    log.path.write_text('{"event":"continued","time":0,"before":100}\n')
    log.write("step", number=2)
    read = events_module._read

    def as_the_writer_goes_on(path: Path, offset: int) -> object:
        if path != log.path:
            log.path.replace(path)
        return read(path, offset)

    monkeypatch.setattr(events_module, "_read", as_the_writer_goes_on)
    assert numbers(log.path)[0] == [2]
