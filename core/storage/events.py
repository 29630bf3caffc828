"""What happened, for people and progress bars: one JSON object a line, appended. Nothing is ever decided from it."""

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from core.canonical import parse_json
from core.errors import FormatError, RunError
from core.storage import jsonl


class EventLog:
    """A JSON Lines file (core/storage/jsonl.py); every event has a name and the seconds since the epoch."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, event: str, **values: Any) -> None:
        """Append one event; raises RunError when the disk is full or refuses, FormatError for what JSON lacks."""
        try:
            jsonl.append(self.path, {"event": event, "time": time.time(), **values}, sync=False)
        except OSError as error:
            raise RunError(f"cannot write {self.path}: expected room for an event log, got {error.strerror}") from error

    @staticmethod
    def read(path: Path, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
        """The events from `offset` on, and where to go on reading; none when the file is missing."""
        lines = jsonl.read_lines(path, offset)
        events = []
        for line in lines.whole:
            # A progress bar must not fail over a damaged line: no decision hangs on it.
            with suppress(FormatError):
                events.append(parse_json(line))
        return events, lines.end
