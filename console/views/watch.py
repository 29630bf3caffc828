"""A run while it goes on, from its event log and its lock: who was asked, who has answered, and whether it still moves.

running      a process writes the run
stalled      one does, and nothing has happened for three times as long as ever before, and for five minutes
dead         none does, and the run has not ended: `foedus run --resume` goes on
completed, failed
"""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from chain.balance import balance
from chain.queue import read_anchors
from console.options import resume_command
from console.settings import saved
from console.views.progress import Event, watching
from console.views.tables import show, table
from core.canonical import Address
from core.escape import visible
from core.rejections import Reason
from core.storage.events import EventLog
from core.storage.lock import is_held
from core.storage.run_folder import RunFolder
from core.storage.state_folder import State

_WORDS: Mapping[str, str] = {
    Reason.NOT_CONNECTED: "node-lost",
    Reason.NO_REPLY: "node-lost",
    Reason.CLIENT_ERROR: "node-failed",
}
"""Reasons in an operator's words; the others are that already."""
_PATIENCE_SECONDS, _PATIENCE_TIMES = 300.0, 3.0
_REFRESH_SECONDS = 1.0
_BALANCE_SECONDS = 30.0


@dataclass
class Participant:
    """What one organisation has done in a run; times in seconds since the epoch."""

    asked: int = 0
    answered: int = 0
    doing: str = "not asked yet"
    since: float | None = None
    sent: float = 0.0
    took: float | None = None
    """Seconds from its last task to its last update."""
    error: str = ""
    """The last one, with its round."""


def parts(events: Iterable[Event], names: Mapping[Address, str]) -> dict[str, Participant]:
    """What every organisation has done, by name, as the events tell."""
    found, number = {name: Participant() for name in sorted(names.values())}, 0
    for event in events:
        if event["event"] == "round-started":
            number = event["round"]
            for address in event["asked"]:
                part = found.setdefault(names.get(address, address), Participant())
                part.asked, part.sent, part.since = part.asked + 1, event["time"], event["time"]
                part.doing = f"training in round {number}"
            continue
        if "organisation" not in event or event["event"] not in ("admitted", "rejected", "objected", "late"):
            continue
        part = found.setdefault(names.get(event["organisation"], event["organisation"]), Participant())
        if event["event"] == "admitted":
            part.answered, part.took = part.answered + 1, event["time"] - part.sent
            part.doing = f"trained in round {number}"
        else:
            reason = str(event.get("reason", event["event"]))
            part.doing = f"{event['event']} in round {event.get('round', number)}"
            part.error = f"{part.doing}: {_WORDS.get(reason, reason)}: {event['detail']}"
        part.since = event["time"]
    return found


def condition(events: Iterable[Event], written: bool, now: float) -> str:
    """Whether a run that has not ended moves; `written` tells whether a process has its lock."""
    if not written:
        return "dead"
    times = [event["time"] for event in events]
    longest = max((after - before for before, after in pairwise(times)), default=0.0)
    silent = now - times[-1] if times else 0.0
    return "stalled" if silent > max(_PATIENCE_SECONDS, _PATIENCE_TIMES * longest) else "running"


def watch(state: State, run: RunFolder, console: Console) -> str:
    """Show a run until it has ended or is dead, and how it then stands; returns which.

    On a terminal a table is kept up to date, elsewhere every event is a line.
    """
    events, found = current(state, run)
    held = Balance.of(state, run)
    if console.is_terminal:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            while found in ("running", "stalled"):
                live.update(picture(state, run, events, found, held()), refresh=True)
                time.sleep(_REFRESH_SECONDS)
                events, found = current(state, run)
    else:
        with watching(console, state, run.name) as tell:
            while not tell() and current(state, run)[1] in ("running", "stalled"):
                time.sleep(_REFRESH_SECONDS)
            tell()
        events, found = current(state, run)
    show(picture(state, run, events, found, held()), on=console)
    return found


@dataclass
class Balance:
    """What the coordinator's account holds on a chain behind a URL, in ether, asked for twice a minute at most."""

    url: str
    account: Address
    _held: float | None = None
    _asked: float = -math.inf

    @classmethod
    def of(cls, state: State, run: RunFolder) -> Self:
        """That of a run's coordinator."""
        return cls(saved(state, run.name).chain, run.genesis.signing(run.genesis.coordinator))

    def __call__(self) -> float | None:
        """The newest answer; None where there is none, or no URL to ask."""
        if "://" in self.url and time.monotonic() - self._asked > _BALANCE_SECONDS:
            self._held, self._asked = balance(self.url, self.account), time.monotonic()
        return self._held


def standing(events: Sequence[Event], written: bool, now: float) -> str:
    """One of the words above.

    Once its rounds have ended a run is completed, whatever was refused of it later, until a round is begun again.
    """
    kinds = [event["event"] for event in events]
    last = kinds[-1] if kinds else ""
    if written and last not in ("finished", "failed"):
        return condition(events, written, now)
    begun = max((index for index, kind in enumerate(kinds) if kind == "round-started"), default=0)
    if "finished" in kinds[begun:]:
        return "completed"
    return "failed" if last == "failed" else condition(events, written, now)


def current(state: State, run: RunFolder) -> tuple[list[Event], str]:
    """A run's events, and how it stands now."""
    events, _ = EventLog.read(state.events(run.name))
    return events, standing(events, is_held(state.lock(run.name)), time.time())


def picture(
    state: State, run: RunFolder, events: Sequence[Event], found: str, ether: float | None = None
) -> RenderableType:
    """A run as it stands: its rounds, its organisations, the anchors that are not mined yet, and what pays for them."""
    now, rounds = time.time(), [event for event in events if event["event"] == "round-started"]
    where = f"round {rounds[-1]['round']} of {rounds[-1]['rounds']}" if rounds else "founding"
    steps = [event["doing"] for event in events[-1:] if event["event"] == "step"]
    anchors = read_anchors(run.queue)
    pending = sum(signed.value.key not in anchors for signed in run.records() if signed.value.admitted)
    organisations = table(
        f"Run {run.name}: {found}, {where}",
        ("organisation", "asked", "answered", "seconds", "now", "for", "last error"),
        (
            (
                name,
                part.asked,
                part.answered,
                None if part.took is None else f"{part.took:.0f}",
                part.doing,
                None if part.since is None else f"{now - part.since:.0f} s",
                part.error or None,
            )
            for name, part in parts(events, run.genesis.names).items()
        ),
        numbers=("asked", "answered", "seconds", "for"),
    )
    age = f"{now - events[-1]['time']:.0f} s ago" if events else "never"
    lines = [*steps, f"Last event {age}; {pending} rounds not anchored yet"]
    if ether is not None:
        lines.append(f"The coordinator's account holds {ether:,.4f} ether")
    if found == "dead":
        lines.append(f"No process writes it: {resume_command(state, run.name)}")
    return Group(organisations, *(Text(visible(line)) for line in lines))
