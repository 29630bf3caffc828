"""A run's progress from its event log: bars on a terminal, elsewhere a plain line a round and organisation."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from console.views.tables import show
from core.canonical import Address
from core.errors import FoedusError, RunError, UsageError
from core.storage.events import EventLog
from core.storage.run_folder import RunFolder
from core.storage.state_folder import State

Event = dict[str, Any]


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
        self._round = ""

    def __call__(self) -> bool:
        """Show what has happened since the last call; True when the ServerApp has ended."""
        events, self._offset = EventLog.read(self.path, self._offset)
        for event in events:
            self._advance(event)
            if line := self._line(event):
                show(line, on=self.progress.console)
            if event["event"] == "failed":
                kind = UsageError if event["exit_code"] == UsageError.exit_code else RunError
                self.failure = kind(event["error"])
            self.ended = self.ended or event["event"] in ("finished", "failed")
        return self.ended

    def _advance(self, event: Event) -> None:
        """Move the bars."""
        match event["event"]:
            case "round-started":
                self._round = f"round {event['round']} of {event['rounds']}"
                done, total = event["round"] - 1, event["rounds"]
                self.progress.update(self.rounds, description="rounds", completed=done, total=total)
                self.progress.reset(self.replies, total=len(event["asked"]), visible=True)
            case "admitted" | "rejected":
                self.progress.advance(self.replies)
            case "evaluated":
                self.progress.update(self.rounds, completed=event["round"])

    def _line(self, event: Event) -> str | None:
        """The event in words; None where the bars say enough, or nobody needs to know."""
        match event["event"]:
            case "rejected":
                return f"{self._round}: {self._name(event)} rejected: {event['reason']}: {event['detail']}"
            case "objected" | "receipt-missing":
                return f"{self._name(event)}: {event['event']}: {event['detail']}"
            case "erased":
                return f"erased {self._name(event)}: {event['label']}"
        return self._line_instead_of_bars(event) if self.progress.disable else None

    def _line_instead_of_bars(self, event: Event) -> str | None:
        match event["event"]:
            case "round-started":
                return f"{self._round}: {len(event['asked'])} organisations asked"
            case "admitted":
                loss = event.get("loss")
                trained = "trained" if loss is None else f"trained, loss {loss:.3f}"
                return f"{self._round}: {self._name(event)} {trained}"
            case "evaluated":
                return f"{self._round}: {_losses(event['losses'])}"
        return None

    def _name(self, event: Event) -> str:
        """The organisation of an event; its address while there is no genesis yet."""
        address: Address = event["organisation"]
        return self._run.genesis.names.get(address, address) if self._run.started else address


def _losses(losses: Mapping[Address, Mapping[str, float]]) -> str:
    """The mean loss of what is served over the organisations, beside the base's."""
    if not losses:
        return "not evaluated"
    base, served = (sum(values[of] for values in losses.values()) / len(losses) for of in ("base", "global"))
    return f"evaluated, loss {served:.3f} (base {base:.3f})"


@contextmanager
def watching(console: Console, state: State, run: str) -> Iterator[Watcher]:
    """A run's progress on `console` while the block runs."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield Watcher(state, run, progress)
