"""Progress bars from a run's event log."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from core.errors import FoedusError, RunError, UsageError
from core.storage.events import EventLog


class Watcher:
    """Follows an event log from where it ends now; knows when the ServerApp has ended, and how."""

    def __init__(self, path: Path, progress: Progress) -> None:
        self.path, self.progress = path, progress
        _, self.offset = EventLog.read(path)
        self.ended = False
        self.failure: FoedusError | None = None
        self.rounds = progress.add_task("starting", total=None)
        self.replies = progress.add_task("replies", total=None, visible=False)

    def __call__(self) -> bool:
        """Show what has happened since the last call; True when the ServerApp has ended."""
        events, self.offset = EventLog.read(self.path, self.offset)
        for event in events:
            self._show(event)
        return self.ended

    def _show(self, event: dict[str, Any]) -> None:
        name = event["event"]
        if name == "round-started":
            done, total = event["round"] - 1, event["rounds"]
            self.progress.update(self.rounds, description="rounds", completed=done, total=total)
            self.progress.reset(self.replies, total=len(event["asked"]), visible=True)
        elif name in ("admitted", "rejected"):
            self.progress.advance(self.replies)
        if name == "rejected":
            self.progress.console.print(f"rejected {event['organisation']}: {event['reason']}: {event['detail']}")
        elif name == "evaluated":
            self.progress.update(self.rounds, completed=event["round"])
        elif name == "failed":
            self.failure = (UsageError if event["exit_code"] == UsageError.exit_code else RunError)(event["error"])
        self.ended = self.ended or name in ("finished", "failed")


@contextmanager
def watching(console: Console, path: Path) -> Iterator[Watcher]:
    """Bars on `console` while the block runs."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        yield Watcher(path, progress)
