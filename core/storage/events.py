"""What happened, for people and progress bars: one JSON object a line, appended. Nothing is ever decided from it.

    RUN.jsonl        at most 8 MiB; then it is set aside, and another begins with {"event": "continued", "before": N}
    RUN.jsonl.1      the one before, also with an event "continued" where there was one before it

Older events are given up. Offsets count all bytes that were ever written, so a reader goes on behind a change of files.
"""

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from core.canonical import parse_json
from core.errors import FormatError, RunError
from core.storage import jsonl
from core.storage.jsonl import Lines

MOST_BYTES = 8 * 2**20
"""Of each of the two files; an event that is larger has its file to itself."""
_CONTINUED = "continued"
_LONGEST_FIRST = 200


class EventLog:
    """JSON Lines (core/storage/jsonl.py); every event has a name and the seconds since the epoch."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, event: str, **values: Any) -> None:
        """Append one event; raises RunError when the disk is full or refuses, FormatError for what JSON lacks."""
        try:
            self._make_room()
            jsonl.append(self.path, {"event": event, "time": time.time(), **values}, sync=False)
        except OSError as error:
            raise RunError(f"cannot write {self.path}: expected room for an event log, got {error.strerror}") from error

    def _make_room(self) -> None:
        if not self.path.exists() or (size := self.path.stat().st_size) < MOST_BYTES:
            return
        before = _begins_at(self.path) + size
        self.path.replace(previous(self.path))
        jsonl.append(self.path, {"event": _CONTINUED, "time": time.time(), "before": before}, sync=False)

    @staticmethod
    def read(path: Path, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
        """The events from `offset` on, and where to go on reading; none when the file is missing."""
        begins, lines = _read(path, offset)
        whole = lines.whole
        if offset < begins:
            before, older = _read(previous(path), offset)
            # Where a writer has just set a file aside, it is the one that was read already.
            whole = older.whole * (before < begins) + whole
        events = []
        for line in whole:
            # A progress bar must not fail over a damaged line: no decision hangs on it.
            with suppress(FormatError):
                events.append(parse_json(line))
        return [event for event in events if event.get("event") != _CONTINUED], begins + lines.end


def previous(path: Path) -> Path:
    """The file that was set aside when an event log was full."""
    return path.with_name(f"{path.name}.1")


def _read(path: Path, offset: int) -> tuple[int, Lines]:
    """The offset in the log at which a file begins, and its lines from `offset` in the log on."""
    while True:
        begins = _begins_at(path)
        lines = jsonl.read_lines(path, max(offset - begins, 0))
        if _begins_at(path) == begins:  # else another file has taken its place meanwhile
            return begins, lines


def _begins_at(path: Path) -> int:
    with suppress(OSError, FormatError), path.open("rb") as file:
        first = parse_json(file.readline(_LONGEST_FIRST))
        if isinstance(first, dict) and first.get("event") == _CONTINUED:
            return int(first["before"])
    return 0
