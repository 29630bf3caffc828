"""What a node's worker does and has done, in a file for whoever watches the node.

STATE/activity.json: counts, times and the kind of an error; nothing of a message or of records.
"""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from flwr.app import Message

from core.canonical import parse_json
from core.errors import FormatError
from core.messages.refusal import Refusal, Refused


@dataclass(frozen=True)
class Activity:
    """Times in seconds since the epoch."""

    answered: int = 0
    """Messages with an answer that is no error."""
    failed: int = 0
    """The others."""
    at: float | None = None
    """When the last one was answered."""
    seconds: float | None = None
    """How long that took."""
    error: str = ""
    """What was wrong with the last one, by its kind."""
    since: float | None = None
    """When the message came that is being worked on."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """From its file; of a worker that has not begun, or of a damaged file, nothing."""
        with suppress(OSError, FormatError, TypeError):
            return cls(**parse_json(path.read_bytes()))
        return cls()

    def write(self, path: Path) -> None:
        """Write the file whole; a full disk must not stop a worker that could still answer."""
        beside = path.with_suffix(".partial")
        with suppress(OSError):
            beside.write_text(json.dumps(asdict(self)), encoding="utf-8")
            beside.replace(path)


def noted(path: Path, answer: Callable[[], Message]) -> Message:
    """An answer, with a note that it is being made, and of what it was."""
    before, began = Activity.read(path), time.time()
    replace(before, since=began).write(path)
    try:
        reply = answer()
    except Exception as error:
        note_failure(path, type(error).__name__, began)
        raise
    if wrong := _error_of(reply):
        note_failure(path, wrong, began)
    else:
        Activity(before.answered + 1, before.failed, time.time(), time.time() - began).write(path)
    return reply


def note_failure(path: Path, error: str, began: float | None = None) -> None:
    """Note an answer that is an error, to a message that came at `began`."""
    before, now = Activity.read(path), time.time()
    Activity(before.answered, before.failed + 1, now, now - (began or now), error).write(path)


def _error_of(reply: Message) -> str:
    """The kind of error that a reply tells, "" for an answer; an organisation that abstains has answered."""
    if reply.has_error():
        return f"error {reply.error.code}"
    refusal = Refusal.from_content(reply.content)
    return f"{refusal.reason}: {refusal.cause}" if refusal and refusal.reason != Refused.ABSTAINED else ""
