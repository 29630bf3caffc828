"""A run while it goes on: its events in words, as server-sent events."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping

from starlette.concurrency import run_in_threadpool

from console.views.progress import words
from console.views.watch import current
from console.web.listing import STATES
from core.canonical import Address
from core.escape import visible
from core.storage.events import EventLog
from core.storage.run_folder import RunFolder
from core.storage.state_folder import State

_POLL_SECONDS = 1.0


async def told(
    state: State, run: RunFolder, names: Mapping[Address, str], at_work: Callable[[str], bool], offset: int
) -> AsyncIterator[bytes]:
    """The events of a run from `offset` of its log on, as server-sent events; the last one says how it ended.

    `names` are the organisations', and `at_work` tells whether an erasure of the run goes on. Each event has the offset
    behind it as its id, by which a browser that was cut off asks for what came after.
    """
    path = state.events(run.name)
    where, ended = "", ""
    while not ended:
        events, offset = await run_in_threadpool(EventLog.read, path, offset)
        for event in events:
            if event["event"] == "round-started":
                where = f"round {event['round']} of {event['rounds']}"
            name = event.get("organisation", "")
            if line := words(event, names.get(name, name), where, all_of_it=True):
                yield _sent("line", visible(line), offset)
            if event["event"] in ("evaluated", "answered", "round-closed", "finished", "failed", "erased"):
                yield _sent("changed", event["event"], offset)
        _, condition = await run_in_threadpool(current, state, run)
        if condition not in ("running", "stalled") and not at_work(run.name):
            ended = STATES[condition]
        yield b": still here\n\n"  # so that a client that has gone is noticed
        await asyncio.sleep(0 if ended else _POLL_SECONDS)
    yield _sent("ended", ended, offset)


def _sent(event: str, data: str, offset: int) -> bytes:
    return f"id: {offset}\nevent: {event}\ndata: {json.dumps(data)}\n\n".encode()
