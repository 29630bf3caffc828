"""Messages out, replies in, one at a time.

Flower's own `send_and_receive` holds every message and every reply of a round in memory. Here each message is pushed
as it is made, and each reply pulled alone, handed over and dropped, so that the server's memory does not grow with
the number of organisations.
"""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from flwr.app import Message
from flwr.serverapp import Grid

_POLL_SECONDS = 0.05

K = TypeVar("K")


def exchange(grid: Grid, messages: Iterable[tuple[K, Message]], timeout: float) -> Iterator[tuple[K, Message | None]]:
    """Send every message under its key; yield (key, reply) as replies come.

    A message that cannot be sent, and after `timeout` seconds whatever is still waiting, comes with None.
    """
    waiting: dict[str, K] = {}
    unsent: list[K] = []
    for key, message in messages:
        # Flower answers with no id, or with None for one, when a node has gone or a message is too large.
        if sent := [message_id for message_id in grid.push_messages([message]) if message_id]:
            waiting[sent[0]] = key
        else:
            unsent.append(key)
    deadline = time.monotonic() + timeout
    while waiting and time.monotonic() < deadline:
        arrived = False
        for message_id in list(waiting):
            for reply in grid.pull_messages([message_id]):
                arrived = True
                yield waiting.pop(message_id), reply
        if not arrived:
            time.sleep(_POLL_SECONDS)
    for key in (*waiting.values(), *unsent):
        yield key, None


def last_line(reason: str | None) -> str:
    """What a reply's error says in the end."""
    lines = (reason or "").strip().splitlines()
    return lines[-1] if lines else "no reason given"


def printable(words: str) -> str:
    """At most 300 characters that no terminal obeys: a client's own words."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in words[:300])
