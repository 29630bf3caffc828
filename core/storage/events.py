"""What happened, for people and progress bars: one JSON object a line, appended. Nothing is ever decided from it."""

import json
import time
from pathlib import Path
from typing import Any

from core.errors import RunError


class EventLog:
    """An append-only JSONL file; every event has a name and the seconds since the epoch."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, event: str, **values: Any) -> None:
        """Append one event; raises RunError when the disk is full or refuses."""
        line = json.dumps({"event": event, "time": time.time(), **values}, allow_nan=False)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise RunError(f"cannot write {self.path}: expected room for an event log, got {error.strerror}") from error

    @staticmethod
    def read(path: Path, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
        """The complete events from `offset` on, and where to go on reading; none when the file is missing.

        A line that a dying process tore is left out.
        """
        if not path.exists():
            return [], offset
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        events = (_parsed(line) for line in whole.splitlines())
        return [event for event in events if event], offset + len(whole)


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        event: dict[str, Any] = json.loads(line)
    except ValueError:
        return {}
    return event
