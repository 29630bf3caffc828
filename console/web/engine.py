"""The one thread that computes for a server: it keeps served models and decodes what waits, several answers together.

The event loop hands questions over and is handed events back; it never computes. Which state a run serves is looked at
for every question, so that a new round, a calibration or an erasure counts from the next answer on.
"""

import asyncio
import logging
import queue
import threading
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from console.options import readable_run
from core.errors import FoedusError, RunError
from core.storage.run_folder import RunFolder
from core.storage.state_folder import State
from llm.decoding import Decoder, Step
from llm.model import Model
from provenance.served import subject
from provenance.serving import Question, ServedReply, ServedSubject
from provenance.trace import TokenScores, TokenTrace

_log = logging.getLogger(__name__)

MOST_WAITING = 128
"""Questions that wait or are answered at a time; beyond them the server says that it is busy."""
_ROWS = 8
"""Answers decoded together."""
_BASES = 2
"""Base models in memory at a time, as many as the playground compares."""


class BusyError(FoedusError):
    """More is asked than the server takes on."""


@dataclass(frozen=True)
class Piece:
    """More text of an answer, and the scores of the token behind it where they were asked for; text may be empty."""

    text: str
    scores: TokenScores | None
    reply: ServedReply
    run: RunFolder


@dataclass(frozen=True)
class Finished:
    """The end of an answer: the reply, its trace, and the run that answered."""

    reply: ServedReply
    trace: TokenTrace | None
    run: RunFolder


@dataclass(eq=False)
class _Ticket:
    """A question that a caller waits for; `deliver` takes its events from the worker's thread to the caller's loop."""

    loop: asyncio.AbstractEventLoop
    name: str
    question: Question
    events: "asyncio.Queue[Any]" = field(default_factory=asyncio.Queue)
    left: bool = False
    """Whether nobody waits any more."""
    reply: ServedReply | None = None
    run: RunFolder | None = None

    def deliver(self, event: Any) -> None:
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.events.put_nowait, event)


class Engine:
    """The served models of a state folder's runs, and the thread that computes with them."""

    def __init__(self, state: State, base: str = "", key: Path | None = None) -> None:
        """`base` is the place of the runs' base model where it has moved, `key` the file of a reader's key."""
        self._state, self.base, self.key = state, base, key
        self._tickets: queue.SimpleQueue[_Ticket | None] = queue.SimpleQueue()
        self._served: dict[str, tuple[Any, RunFolder, ServedSubject]] = {}
        self._decoders: dict[Model, Decoder] = {}
        self._decoding: list[_Ticket] = []
        self._waiting: deque[_Ticket] = deque()
        self.open = 0
        """Questions that wait or are answered now."""
        self._thread = threading.Thread(target=self._work, name="answers", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """End the thread after the step that it is at."""
        self._tickets.put(None)
        self._thread.join(timeout=30)

    async def answer(self, run: str, question: Question) -> AsyncGenerator[Piece | Finished, None]:
        """Yield an answer as it is generated; the last event is Finished.

        Whoever stops iterating ends the answer. Raises BusyError, and what loading and answering raise.
        """
        if self.open >= MOST_WAITING:
            raise BusyError(f"expected at most {MOST_WAITING} requests at a time, got more: try again later")
        self.open += 1
        ticket = _Ticket(asyncio.get_running_loop(), run, question)
        self._tickets.put(ticket)
        try:
            while True:
                event = await ticket.events.get()
                if isinstance(event, BaseException):
                    raise event
                yield event
                if isinstance(event, Finished):
                    return
        finally:
            ticket.left = True
            self.open -= 1

    # --- in the thread ---------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while self._collect():
            while self._waiting and len(self._decoding) < _ROWS:
                self._begin(self._waiting.popleft())
            for ticket in [ticket for ticket in self._decoding if ticket.left]:
                self._end(ticket)
            for decoder in self._decoders.values():
                try:
                    steps = decoder.step()
                except Exception as error:  # noqa: BLE001 - a defect in one pass must not end the server
                    for ticket in [t for t in self._decoding if t.reply and t.reply.subject.model is decoder.model]:
                        self._end(ticket)
                        ticket.deliver(_told(error))
                    continue
                for step in steps:
                    self._take(next(t for t in self._decoding if t.reply and t.reply.answer is step.answer), step)

    def _collect(self) -> bool:
        """Take what has come, waiting where there is nothing else to do; False once the server is closed."""
        idle = not self._decoding and not self._waiting
        while idle or not self._tickets.empty():
            ticket = self._tickets.get()
            if ticket is None:
                return False
            self._waiting.append(ticket)
            idle = False
        return True

    def _begin(self, ticket: _Ticket) -> None:
        if ticket.left:
            return
        try:
            run, served = self._serving(ticket.name)
            ticket.run, ticket.reply = run, ServedReply.to(ticket.question, served)
            decoder = self._decoders.setdefault(served.model, Decoder(served.model))
            self._decoding.append(ticket)
            self._take(ticket, decoder.begin(ticket.reply.answer))
        except Exception as error:  # noqa: BLE001 - told to the caller, whatever it is; the others are answered on
            self._end(ticket)
            ticket.deliver(_told(error))

    def _take(self, ticket: _Ticket, step: Step) -> None:
        """Deliver a step of an answer, and with the last one its trace."""
        reply, run = ticket.reply, ticket.run
        if reply is None or run is None:
            return
        try:
            text, scores = reply.take(step)
            if text or scores:
                ticket.deliver(Piece(text, scores, reply, run))
            if reply.finished:
                self._end(ticket)
                ticket.deliver(Finished(reply, None if ticket.left else reply.trace(), run))
        except Exception as error:  # noqa: BLE001 - as above
            self._end(ticket)
            ticket.deliver(_told(error))

    def _end(self, ticket: _Ticket) -> None:
        self._decoding = [other for other in self._decoding if other is not ticket]
        for decoder in self._decoders.values():
            decoder.drop([ticket.reply.answer] if ticket.reply else [])

    def _serving(self, name: str) -> tuple[RunFolder, ServedSubject]:
        """A run's served model, loaded again where its files have changed."""
        run = readable_run(self._state, name, self.key)
        stamp = served_stamp(run)
        known = self._served.get(name)
        if known is None or known[0] != stamp:
            # A base that is loaded serves on, unless the folder has become another federation's.
            same = known is not None and known[1].genesis.digest == run.genesis.digest
            base = known[2].model if known and same else self.base
            if not same:
                self._served.pop(name, None)
                self._make_room()
            known = stamp, run, ServedSubject(subject(run, base))
            if served_stamp(run) != stamp:
                raise RunError(f"run {name} is being written: ask again in a moment")
        self._served.pop(name, None)
        self._served[name] = known  # at the end: the order is that of the last use
        return known[1], known[2]

    def _make_room(self) -> None:
        """Forget the runs whose base was asked longest ago, unless it is answering, so that one more finds room."""
        busy = [ticket.reply.subject.model for ticket in self._decoding if ticket.reply]
        models = dict.fromkeys(served.model for _, _, served in self._served.values())
        for model in [model for model in models if model not in busy][: max(len(models) - _BASES + 1, 0)]:
            self._served = {name: known for name, known in self._served.items() if known[2].model is not model}
        kept = {*busy, *(served.model for _, _, served in self._served.values())}
        self._decoders = {model: decoder for model, decoder in self._decoders.items() if model in kept}


def _told(error: Exception) -> Exception:
    """An error as the one who asked is told of it; a defect of ours is logged with its place."""
    if isinstance(error, FoedusError | OSError):
        return error
    _log.error("an answer failed", exc_info=error)
    return RunError(f"the server failed: {type(error).__name__}: {error}")


def served_stamp(run: RunFolder) -> tuple[Any, ...]:
    """What changes when a run serves something else: its records, generations, erasures and calibration."""
    names = tuple(
        tuple(sorted(path.name for path in (run.folder / folder).glob("*.json")))
        for folder in ("records", "generations", "erasures")
    )
    files = (run.folder / "calibration.json", run.folder / "genesis.json")
    return (*names, *(path.stat().st_mtime_ns if path.exists() else None for path in files))
