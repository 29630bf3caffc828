"""Tasks: who has been sent one to train and has not answered yet, how long a round waits, and who is late.

An organisation has one task at a time. A round that has its quorum waits `grace` times the median time of its answers
so far for the others, and not for those that were silent in some rounds in a row. Whoever has not answered then is
late and keeps its task: in the next round its update counts, where the genesis allows that. It is sent no other before.

Whoever answers that its update is held for a person of its organisation is waited for as one that has not answered, and
sent the same task again from time to time; when the round closes, it is no part of it.
"""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from statistics import median

from flwr.app import Message
from flwr.serverapp import Grid

from core.rejections import Reason
from core.round_key import RoundKey
from core.rounds import RoundRecord
from server_app.exchange import CLOCK, Clock, Recipients, exchange
from server_app.rounds import Recipient, Rounds

Again = Callable[[Iterable[Recipient]], Iterable[tuple[Recipient, Message]]]


@dataclass(frozen=True)
class Waiting:
    """How long a round waits, as its settings say (core/config.py); times in seconds."""

    timeout: float = 3600.0
    grace: float = 0.0
    silent_rounds: int = 3
    evaluate_timeout: float = 600.0


_ASK_AGAIN_SECONDS = 30.0
"""Before an organisation whose update is held is sent its task again."""


@dataclass(frozen=True)
class _Held:
    """An answer that says that an update is held, and when its organisation is asked again."""

    answer: Message
    again_at: float


class Tasks:
    """The tasks that are out, in every lane, and the wait of the round that is open."""

    def __init__(self, rounds: Rounds, waiting: Waiting, clock: Clock = CLOCK) -> None:
        self.rounds, self.waiting, self.clock = rounds, waiting, clock
        self._sent = Recipients[Recipient](clock)
        self._keys: dict[Recipient, RoundKey] = {}
        self._awaited: set[Recipient] = set()
        self._held: dict[Recipient, _Held] = {}
        self._closing = False
        self._quorum_at = math.nan
        self.silence: Counter[Recipient] = Counter()
        """The records in a row up to now in which an organisation was asked and did not answer."""
        self.note_silence(signed.value for signed in rounds.run.records())

    def note_silence(self, records: Iterable[RoundRecord]) -> None:
        """Count for whom nothing came in these records, which follow those known."""
        for record in records:
            silent = {*record.late, *(r.organisation for r in record.rejected if r.reason == Reason.NO_REPLY)}
            silent -= record.delays.keys()
            for organisation in record.asked | record.delays.keys():
                recipient = Recipient(record.lane, organisation)
                self.silence[recipient] = self.silence[recipient] + 1 if organisation in silent else 0

    def begin(self, asked: Iterable[Recipient]) -> list[Recipient]:
        """Begin a round in which the policy asks these; returns those without a task, to be sent one now."""
        self._awaited, self._held, self._quorum_at, self._closing = set(), {}, math.nan, False
        free = []
        for recipient in asked:
            if recipient in self.out and self.seconds(recipient) < self.waiting.timeout:
                self._awaited.add(recipient)
            else:
                # What is older than a round may take is lost: with its node, or with its reply.
                self._sent.forget(recipient)
                free.append(recipient)
        return free

    def register(self, messages: Iterable[tuple[Recipient, Message]]) -> Iterator[Message]:
        """Yield the messages of the open round, each noted under its recipient when it is made."""

        def noted() -> Iterator[tuple[Recipient, Message]]:
            for recipient, message in messages:
                self._awaited.add(recipient)
                self._keys[recipient] = self.rounds.next_key(recipient)
                yield recipient, message

        return self._sent.register(noted())

    @property
    def out(self) -> Collection[Recipient]:
        """Those whose task has no reply so far."""
        return self._sent.unanswered.keys()

    def seconds(self, recipient: Recipient) -> float:
        """The time since a recipient was sent its task."""
        return self._sent.seconds(recipient)

    @property
    def grace(self) -> float:
        """The seconds since the open round had its quorum; 0 as long as it has none."""
        return 0.0 if math.isnan(self._quorum_at) else self.clock.now() - self._quorum_at

    def settle(self, recipient: Recipient) -> None:
        """Note that a recipient's update, if it was held, is no more."""
        self._held.pop(recipient, None)

    def exchange(self, grid: Grid, messages: Iterable[Message], again: Again = lambda _: ()) -> Iterator[Message]:
        """Send a round's messages; yield the replies to them, and to earlier tasks, until enough has come.

        `again` makes the messages anew of those whose updates are held.
        """
        earlier = {sent.message_id: sent for sent in self._sent.unanswered.values()}

        def due() -> Iterator[Message]:
            now = self.clock.now()
            asked = [who for who, held in self._held.items() if held.again_at <= now and who not in self.out]
            later = now + _ASK_AGAIN_SECONDS  # its node may be away
            self._held |= {recipient: replace(self._held[recipient], again_at=later) for recipient in asked}
            return self.register(again(asked))

        return exchange(grid, messages, self.waiting.timeout, earlier, self.enough, self.clock, due)

    def hold(self, recipient: Recipient, answer: Message) -> bool:
        """Wait on for a recipient whose update is held, as the answer says; not where the round is closing."""
        if self._closing:
            return False
        if recipient not in self._held:
            key = self.rounds.next_key(recipient)
            where = {"lane": key.lane, "round": key.round, "organisation": recipient.organisation}
            self.rounds.events.write("held", **where, detail="its update waits for approval at home")
        self._awaited.add(recipient)
        self._held[recipient] = _Held(answer, self.clock.now() + _ASK_AGAIN_SECONDS)
        return True

    def enough(self, waiting: Collection[str]) -> bool:
        """Whether the open round closes, while these messages are without a reply."""
        ids = {recipient: sent.message_id for recipient, sent in self._sent.unanswered.items()}
        if not all(map(self.rounds.has_quorum, self.rounds.open)):
            if self._held:
                return False
            hoped_for = (recipient for recipient in ids if recipient in self._awaited or self._counts(recipient))
            return not any(ids[recipient] in waiting for recipient in hoped_for)
        if math.isnan(self._quorum_at):
            self._quorum_at = self.clock.now()
        waited_for = (
            recipient
            for recipient in ids
            if self._counts(recipient) and self.silence[recipient] < self.waiting.silent_rounds
        )
        if not self._held and not any(ids[recipient] in waiting for recipient in waited_for):
            return True
        taken = [seconds for each in self.rounds.open.values() for seconds in each.seconds.values()]
        return bool(self.waiting.grace and taken) and self.grace >= self.waiting.grace * median(taken)

    def _counts(self, recipient: Recipient) -> bool:
        """Whether the answer to a task that is out counts in the open round."""
        key = self._keys[recipient]
        in_time = recipient in self._awaited and key == self.rounds.next_key(recipient)
        return in_time or self.counts_late(recipient, key)

    def counts_late(self, recipient: Recipient, key: RoundKey) -> bool:
        """Whether an update for the round `key` counts in the open round of its lane, which comes after it."""
        lane, following = self.rounds.lanes[recipient.lane], self.rounds.next_key(recipient)
        delay = following.round - key.round
        late = 0 < delay <= self.rounds.genesis.staleness and following.generation == key.generation
        named = lane.head is not None and recipient.organisation in lane.head.value.late
        return late and named and lane.index in self.rounds.open

    def match(self, replies: Iterable[Message]) -> Iterator[tuple[Recipient, RoundKey, Message | None]]:
        """Yield every reply with its recipient and the round that its task was for.

        After the last one, those that the open round asked and that have not answered, with None; those that are late
        are noted as that.
        """
        for recipient, reply in self._sent.match(replies):
            if reply is None:
                continue
            key = self._keys[recipient]
            if key == self.rounds.next_key(recipient):
                self._awaited.discard(recipient)
            yield recipient, key, reply
        self._closing = True
        for recipient in sorted(self._awaited):
            if held := self._held.pop(recipient, None):
                self._sent.forget(recipient)
                yield recipient, self.rounds.next_key(recipient), held.answer
                continue
            # Lost with its node, or with a reply that never came; one of an earlier round it may just have answered.
            lost = recipient in self._sent.lost or self.seconds(recipient) >= self.waiting.timeout
            if self.rounds.has_quorum(recipient.lane) and not lost:
                self.note_late(recipient)
            else:
                self._sent.forget(recipient)
                yield recipient, self.rounds.next_key(recipient), None

    def note_late(self, recipient: Recipient) -> None:
        """Record in the open round that an organisation has not answered so long after the quorum, and may still."""
        (lane, organisation), grace = recipient, self.grace
        number, here = self.rounds.next_key(recipient).round, self.rounds.open[lane]
        here.late.append(organisation)
        here.grace = grace
        detail = f"no answer {grace:.0f} s after the quorum of round {number}"
        self.rounds.events.write("late", lane=lane, round=number, organisation=organisation, detail=detail)
