"""Progress on stderr: bars on a terminal, elsewhere a plain line a round and organisation.

A run's comes from its event log; whatever else takes over two seconds says what it is doing.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from console.views import logs
from console.views.tables import screen, show
from core.errors import FoedusError, RunError, UsageError
from core.escape import visible
from core.storage.events import EventLog
from core.storage.run_folder import RunFolder
from core.storage.state_folder import State

Event = dict[str, Any]

_LEVELS = {
    "failed": "error", "rejected": "warning", "late": "warning", "uncounted": "warning", "objected": "warning",
    "other-version": "warning",
    "bid-rejected": "warning", "bind-failed": "warning", "receipt-missing": "warning", "uncalibrated": "warning",
}  # fmt: skip
"""How bad an event is, in a JSON log; the others are news."""
_PATIENCE = 2.0
"""Seconds that pass without a word where there is no terminal."""


class Watcher:
    """Follows a run's event log from where it ends now; knows when the ServerApp has ended, and how."""

    def __init__(self, state: State, run: str, progress: Progress) -> None:
        """`progress` is shown where it is not disabled; the lines go to its console."""
        self.path, self.progress = state.events(run), progress
        self._run: RunFolder = state.run(run)
        _, self._offset = EventLog.read(self.path)
        self.ended = False
        self.failure: FoedusError | None = None
        self.rounds = progress.add_task("starting", total=None)
        self.replies = progress.add_task("replies", total=None, visible=False)
        self._round, self._number = "", 0

    def __call__(self) -> bool:
        """Show what has happened since the last call; True when the ServerApp has ended."""
        events, self._offset = EventLog.read(self.path, self._offset)
        for event in events:
            self._move_bars(event)
            self._tell(event)
            if event["event"] == "failed":
                kind = UsageError if event["exit_code"] == UsageError.exit_code else RunError
                self.failure = kind(event["error"])
            self.ended = self.ended or event["event"] in ("finished", "failed")
        return self.ended

    def go_on(self) -> None:
        """Follow another ServerApp of the run, whatever became of the last."""
        self.ended, self.failure = False, None

    def _move_bars(self, event: Event) -> None:
        match event["event"]:
            case "step":
                self.progress.update(self.rounds, description=visible(event["doing"]))
            case "round-started":
                self._number = event["round"]
                self._round = f"round {self._number} of {event['rounds']}"
                done, total = event["round"] - 1, event["rounds"]
                self.progress.update(self.rounds, description="rounds", completed=done, total=total)
                self.progress.reset(self.replies, total=len(event["asked"]), visible=True)
            case "admitted" | "rejected":
                self.progress.advance(self.replies)
            case "evaluated":
                self.progress.update(self.rounds, completed=event["round"])

    def _tell(self, event: Event) -> None:
        """Print the event in words, unless the bars say enough or nobody needs to know."""
        name = event.get("organisation", "")
        if self._run.started:  # before that there is no genesis, and an address is all there is
            name = self._run.genesis.names.get(name, name)
        line = words(event, name, self._round, all_of_it=self.progress.disable)
        number = event.get("round", self._number if name else None)
        place = {what: where for what, where in (("round", number), ("organisation", name)) if where}
        level, message = _LEVELS.get(event["event"], "info"), line or event["event"]
        if not logs.tell(event["event"], message, level, run=self._run.name, **place) and line:
            show(line, on=self.progress.console)


def words(event: Event, name: str, where: str, *, all_of_it: bool) -> str:
    """An event in one line; "" for one that says nothing, or, without `all_of_it`, nothing that bars do not show.

    `name` is its organisation's, `where` the round that goes on.
    """
    line = ""
    match event["event"]:
        case "rejected":
            line = f"{where}: {name} rejected: {event['reason']}: {event['detail']}"
        case (
            "late"
            | "held"
            | "other-version"
            | "uncounted"
            | "objected"
            | "receipt-missing"
            | "uncalibrated"
            | "warning"
        ):
            line = f"{name or 'verdicts'}: {event['event']}: {event['detail']}"
        case "erased":
            line = f"erased {name}: {event['label']}"
        case "step" if all_of_it:
            line = event["doing"]
        case "round-started" if all_of_it:
            line = f"{where}: {len(event['asked'])} organisations asked"
        case "admitted" if all_of_it:
            loss = event.get("loss")
            line = f"{where}: {name} trained" + ("" if loss is None else f", loss {loss:.3f}")
        case "evaluated" if all_of_it and (losses := list(event["losses"].values())):
            base, served = (sum(values[of] for values in losses) / len(losses) for of in ("base", "global"))
            # Of the round before the one that goes on, or of one that nobody has begun in this process.
            _, of, last = where.partition(" of ")
            line = f"round {event['round']}{of}{last}: evaluated, loss {served:.3f} (base {base:.3f})"
    return line


@contextmanager
def watching(console: Console, state: State, run: str) -> Iterator[Watcher]:
    """A run's progress on `console` while the block runs."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield Watcher(state, run, progress)


@contextmanager
def working(what: str, on: Console | None = None) -> Iterator[None]:
    """Say on stderr what the block does: a spinner on a terminal, elsewhere a line once it has taken two seconds."""
    console = on or screen(stderr=True)
    if console.is_terminal:
        with console.status(Text(visible(what))):
            yield
        return
    timer = threading.Timer(_PATIENCE, show, (f"{what} …",), {"on": console})
    timer.daemon = True  # a command that fails must not wait for it
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
