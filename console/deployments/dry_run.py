"""A dry run of a deployment as its coordinator reads it: what the node of every admitted organisation did."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from core.storage.events import EventLog

SILENT = "expected a node that answers, got none: start it, or read its log (`foedus node`, `foedus doctor`)"


@dataclass(frozen=True)
class TriedNode:
    """An organisation's node, None where it is not known whose: seconds of one step, its most bytes, what is wrong."""

    organisation: str | None
    seconds: float
    memory: int
    problems: tuple[str, ...]

    @classmethod
    def of(cls, event: dict[str, Any]) -> Self:
        """From the event of one answer."""
        return cls(event["name"], round(event["seconds"], 3), event["memory"], tuple(event["problems"]))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        plain = {"organisation": self.organisation, "ok": not self.problems, "seconds": self.seconds}
        return plain | {"memory": self.memory, "problems": list(self.problems)}


def tried(events: Path, admitted: Iterable[str]) -> Iterator[TriedNode]:
    """The nodes that answered, then the admitted organisations of which none did."""
    told = EventLog.read(events)[0]
    # A ServerApp that was lost is started again, asks everybody anew, and says so first.
    begun = max((index for index, event in enumerate(told) if event["event"] == "step"), default=0)
    answers = [event for event in told[begun:] if event["event"] == "checked"]
    yield from map(TriedNode.of, answers)
    silent = set(admitted) - {event["name"] for event in answers}
    yield from (TriedNode(name, 0.0, 0, (SILENT,)) for name in sorted(silent))
