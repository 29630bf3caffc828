"""What happened, for people and progress bars: one JSON object a line, appended. Nothing is ever decided from it."""

import json
import time
from pathlib import Path
from typing import Any


class EventLog:
    """An append-only JSONL file; every event has a name and the seconds since the epoch."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path

    def write(self, event: str, **values: Any) -> None:
        """Append one event."""
        line = json.dumps({"event": event, "time": time.time(), **values}, allow_nan=False)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    @staticmethod
    def read(path: Path, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
        """The complete events from `offset` on, and where to go on reading; none when the file is missing."""
        if not path.exists():
            return [], offset
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        return [json.loads(line) for line in whole.splitlines()], offset + len(whole)
