"""Messages out, replies in, one at a time.

Flower's own `send_and_receive` holds every message and every reply of a round in memory. Here each message is pushed
as it is made, and each reply pulled alone, handed over and dropped, so that the coordinator's memory does not grow with
the number of organisations.
"""

import time
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Generic, TypeVar

import httpx
from flwr.app import Error, Message, Metadata, RecordDict
from flwr.app.message.message import make_message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

_POLL_SECONDS = 0.05
_LONGEST_REASON = 4096

K = TypeVar("K", bound=Hashable)

Send = Callable[[Iterable[Message]], Iterable[Message]]
"""Sends messages and yields the replies as they come: `exchange` on some grid."""


@dataclass(frozen=True)
class Clock:
    """Seconds that pass by themselves, and a way to let some pass."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


CLOCK = Clock()


def exchange(
    grid: Grid,
    messages: Iterable[Message],
    timeout: float,
    earlier: Mapping[str, Metadata] = MappingProxyType({}),
    enough: Callable[[Collection[str]], bool] = lambda waiting: not waiting,
    clock: Clock = CLOCK,
    more: Callable[[], Iterable[Message]] = tuple,
) -> Iterator[Message]:
    """Push every message, then yield the replies as they come, also to `earlier` messages whose replies are still out.

    `more` is asked between looks for further messages to push.

    It ends after `timeout` seconds, or when `enough` says so of the messages that are still without a reply: by default
    when there is none. Whatever is there is always handed over first. The grid gives a message its id while it is
    pushed, and a reply names it in `reply_to_message_id`.
    """

    def pushed(new: Iterable[Message]) -> Iterator[tuple[str, Metadata]]:
        # Flower returns no id, or None for one, when a node has gone or a message is too large.
        return ((name, message.metadata) for message in new for name in grid.push_messages([message]) if name)

    waiting = {**earlier, **dict(pushed(messages))}
    deadline = clock.now() + timeout
    while True:
        arrived = False
        for message_id in list(waiting):
            # One id at a time: several would have the grid hold all replies that are ready.
            for reply in pulled(grid, message_id, waiting[message_id]):
                arrived = True
                waiting.pop(message_id, None)
                yield reply
        waiting |= pushed(more())
        if enough(waiting.keys()) or clock.now() >= deadline:
            return
        if not arrived:
            clock.sleep(_POLL_SECONDS)


def pulled(grid: Grid, message_id: str, question: Metadata) -> Iterable[Message]:
    """The reply to a message, if there is one; a reply that Flower cannot read is that node's error."""
    try:
        return list(grid.pull_messages([message_id]))
    except httpx.TransportError:  # the SuperLink does not answer: nobody's reply
        raise
    # Flower inflates replies while it pulls them: what a node sent must not end the exchange with all others.
    except Exception as error:  # noqa: BLE001
        reason = f"its reply cannot be read: {type(error).__name__}"
        unread = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason)
        return [Message(unread, reply_to=make_message(question, RecordDict()))]


class Recipients(Generic[K]):
    """The recipients of messages; a reply is matched by the id of the message that it answers."""

    def __init__(self, clock: Clock = CLOCK) -> None:
        self._sent: dict[K, Metadata] = {}
        self._sent_at: dict[K, float] = {}
        self._clock = clock

    def register(self, messages: Iterable[tuple[K, Message]]) -> Iterator[Message]:
        """Yield the messages, each noted under its recipient; their contents are not kept."""
        for recipient, message in messages:
            self._sent[recipient], self._sent_at[recipient] = message.metadata, self._clock.now()
            yield message

    def seconds(self, recipient: K) -> float:
        """The time since a recipient was sent its message."""
        return self._clock.now() - self._sent_at[recipient]

    @property
    def unanswered(self) -> dict[K, Metadata]:
        """The messages that were sent and have no reply so far."""
        return {recipient: sent for recipient, sent in self._sent.items() if sent.message_id}

    @property
    def lost(self) -> set[K]:
        """The recipients whose message could not be sent."""
        return {recipient for recipient, sent in self._sent.items() if not sent.message_id}

    def forget(self, recipient: K) -> None:
        """Wait no more for a recipient: a reply that comes after all is nobody's."""
        self._sent.pop(recipient, None)

    def match(self, replies: Iterable[Message]) -> Iterator[tuple[K, Message | None]]:
        """Yield every reply with its recipient, and after the last one the recipients without a reply, with None."""
        recipients: dict[str, K] = {}
        for reply in replies:
            answered = reply.metadata.reply_to_message_id
            if answered not in recipients:
                # Read here and not before: a message gets its id while it is pushed.
                recipients = {sent.message_id: recipient for recipient, sent in self._sent.items()}
            if answered in recipients:
                recipient = recipients.pop(answered)
                del self._sent[recipient]
                yield recipient, reply
        for recipient in list(self._sent):
            yield recipient, None


def ask(messages: Iterable[tuple[K, Message]], send: Send) -> Iterator[tuple[K, Message | None]]:
    """Send every recipient its message; yield (recipient, reply) as replies come, and None for one without a reply."""
    recipients = Recipients[K]()
    return recipients.match(send(recipients.register(messages)))


def last_line(reason: str | None) -> str:
    """The last line of a reply's error: of a traceback, the exception."""
    lines = (reason or "")[-_LONGEST_REASON:].strip().splitlines()
    return lines[-1] if lines else "no reason given"
