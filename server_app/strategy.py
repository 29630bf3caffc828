"""The custom strategy: one federation, round by round.

    consult → send each lane's state with its signed record → admit each reply → store → order → aggregate →
    write the RoundRecord → queue the anchor → evaluate

It only appends records and stores artifacts; rewards, provenance, unlearning and audit read them. It implements
Flower's hooks and overrides `start`, since Flower's own loop always counts from one and knows no lanes, no quorum
and no replies one by one; in a ServerApp it is used as any other: ``strategy.start(grid)``.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import asdict, dataclass, field
from functools import partial
from logging import INFO
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from flwr.app import ArrayRecord, ConfigRecord, Message, Metadata, MetricRecord
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from agents.policies import POLICIES, Observation, SelectionContext, observations_of
from agents.rewards import Rewards
from core.adapter import AdapterState
from core.aggregation import RULES, WeightedUpdate, by_address, weights
from core.canonical import Address
from core.composition import Composition
from core.errors import FormatError, QuorumError, RunError, UsageError
from core.keys import Key
from core.lanes import Lane, served
from core.messages import codec as wire
from core.rounds import Admitted, Rejection, RoundRecord, Salts
from core.signed import Signed
from core.storage.events import EventLog
from core.storage.run_folder import RunFolder
from core.update import ABSTAIN, Bid, UpdateManifest
from server_app.admission import Expected, Reason, RejectedError, admit
from server_app.bids import BidRequest, answered, coming
from server_app.binding import Bindings
from server_app.evaluation import curves, losses_in, means, refusal_in
from server_app.exchange import exchange, last_line, printable

if TYPE_CHECKING:
    from provenance.trace import TokenTrace
    from server_app.erasure.run import Erasing
    from unlearning.certificate import ErasureCertificate

_LONGEST_PAUSE = 60.0

Ask = tuple[int, Address]
"""Whom a message asked: (lane, organisation)."""

K = TypeVar("K")

_UNKNOWN_ERROR = 0
"""Flower's code for an error that is not the ClientApp's own."""


@dataclass
class Outcome:
    """What has come of a lane's round so far."""

    admitted: list[Signed[UpdateManifest]] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)

    def reject(self, organisation: Address, reason: Reason, detail: str) -> Rejection:
        """Note why an organisation's reply does not count."""
        rejection = Rejection(organisation, reason, printable(detail))
        self.rejected.append(rejection)
        return rejection


class Foedus(Strategy):
    """Signed, admitted, recorded and anchored federated averaging of LoRA updates.

    `run` holds the genesis, `key` is the coordinator's, `fresh` the adapter before any training, `commit` queues a
    round for the chain, and `validate` measures what is served on the set that nobody owns. `revoked` are the
    organisations that the chain no longer lets take part; it must answer at once. `rewards` credits every round, where
    the policy needs it.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - a composition root names its parts
        self,
        run: RunFolder,
        key: Key,
        fresh: AdapterState,
        bindings: Bindings,
        events: EventLog,
        commit: Callable[[RoundRecord], object],
        validate: Callable[[Composition], Mapping[str, float]],
        timeout: float = 3600.0,
        track: Callable[[Mapping[str, float], int], None] = lambda _values, _round: None,
        retry_pause: float = 1.0,
        revoked: Callable[[], Set[Address]] = frozenset,
        rewards: Rewards | None = None,
    ) -> None:
        self.run, self.key, self.fresh, self.bindings = run, key, fresh, bindings
        self.events, self.commit, self.validate, self.track = events, commit, validate, track
        self.timeout, self.retry_pause, self.revoked = timeout, retry_pause, revoked
        self.erasing: Erasing | None = None
        """What `unlearn` needs; whoever makes the strategy sets it."""
        self.genesis = run.genesis
        self.rule = RULES[self.genesis.rule]
        initial = self.rule.initial(fresh)
        self.lanes = [Lane.restore(run, index, initial) for index in range(len(self.genesis.lanes))]
        records = (signed.value for signed in run.records())
        self.nonces = {a.signed.value.nonce for record in records for a in record.admitted}
        self.rewards = rewards
        self._history = [self._shown(index) for index in range(len(self.lanes))]
        self._bids: dict[int, dict[Address, Bid]] = {}
        self._outcomes: dict[int, Outcome] = {}
        self._sent: list[tuple[Ask, Metadata]] = []

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord | None = None,  # noqa: ARG002 - the genesis and the records fix them
        num_rounds: int = 0,  # noqa: ARG002
        timeout: float | None = None,
        train_config: ConfigRecord | None = None,  # noqa: ARG002
        evaluate_config: ConfigRecord | None = None,  # noqa: ARG002
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Run the rounds that are still missing; raises QuorumError when a round stays below its quorum.

        The last round of a run that is resumed is evaluated again: it may have died before it was.
        """
        self.timeout = timeout or self.timeout
        self.summary()
        result = Result()
        for number in range(max(self.round, 1), self.rounds + 1):
            while self.round < number:
                self._train_round(grid, number)
            if self.genesis.training.calibrates(number) and number < self.rounds:
                continue  # a calibration is judged by its end
            result.evaluate_metrics_clientapp[number] = self._evaluate_round(grid, number)
            if evaluate_fn and (metrics := evaluate_fn(number, wire.pack(self.served))):
                result.evaluate_metrics_serverapp[number] = metrics
        result.arrays = wire.pack(self.served)
        return result

    @property
    def round(self) -> int:
        """The last round that every lane has closed."""
        return min((lane.round for lane in self.lanes if not lane.complete), default=self.rounds)

    @property
    def rounds(self) -> int:
        """The round that the last lane is complete with."""
        return max(lane.rounds for lane in self.lanes)

    @property
    def served(self) -> Composition:
        """What is served."""
        return served(self.genesis, self.lanes)

    def summary(self) -> None:
        """Log what this federation is."""
        genesis = self.genesis
        log(INFO, "Run %s: %d organisations in %d lanes", genesis.run, len(genesis.organisations), len(genesis.lanes))
        log(INFO, "Genesis %s, rule %s, base %s", genesis.digest, genesis.rule, genesis.base.name)

    def configure_train(
        self,
        server_round: int,
        arrays: ArrayRecord,  # noqa: ARG002 - every lane has its own state
        config: ConfigRecord,  # noqa: ARG002
        grid: Grid,
    ) -> Iterable[Message]:
        """One message for every organisation that the policy asks, in the lanes that lack this round."""
        self._consult(grid, server_round)
        self._sent = []
        for ask, message in self._asks(server_round):
            self._sent.append((ask, message.metadata))
            yield message

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Admit the replies to what `configure_train` sent and close the round; whoever is missing is silent."""
        waiting = {metadata.message_id: ask for ask, metadata in self._sent}
        for reply in replies:
            if (ask := waiting.pop(reply.metadata.reply_to_message_id, None)) is not None:
                self._receive(ask, reply)
        for ask in waiting.values():
            self._receive(ask, None)
        self._close(server_round)
        return wire.pack(self.served), None

    def configure_evaluate(
        self,
        server_round: int,
        arrays: ArrayRecord,  # noqa: ARG002
        config: ConfigRecord,  # noqa: ARG002
        grid: Grid,  # noqa: ARG002
    ) -> Iterable[Message]:
        """One message for every connected organisation, with what is served."""
        return (message for _, message in self._evaluation_asks(server_round))

    def aggregate_evaluate(
        self,
        server_round: int,  # noqa: ARG002 - Flower's signature
        replies: Iterable[Message],
    ) -> MetricRecord | None:
        """The mean of the organisations' losses."""
        losses = [measured for reply in replies if (measured := losses_in(reply))]
        return means(losses) if losses else None

    def unlearn(self, organisation: Address, method: str, records: Path | None = None) -> "ErasureCertificate":
        """Erase an organisation by remove, repair or replay, or `records` of it, a JSONL file, by shards or replay.

        Returns the certificate; the last one, where the organisation learns in several lanes. Raises UsageError for bad
        input, DataError for a bad file, RunError when the run does not hold or has another writer; see
        `server_app.erasure.run.erase`.
        """
        from server_app.erasure.run import ErasureTarget, erase  # noqa: PLC0415 - it builds on this module
        from unlearning.records import read_digests  # noqa: PLC0415 - likewise

        if self.erasing is None:
            raise UsageError("this strategy was given no ledger to erase on")
        wanted = ErasureTarget(organisation, method, read_digests(records) if records else ())
        return erase(self, self.erasing, wanted)[-1].value

    def restore(self, index: int) -> None:
        """Go on with a lane as the records have it."""
        self.lanes[index] = Lane.restore(self.run, index, self.rule.initial(self.fresh))
        self._history[index] = self._shown(index)

    def carry(self, index: int, records: Iterable[RoundRecord]) -> None:
        """Sum rounds of an earlier generation again, from the updates of those who are still members."""
        for record in records:
            lane = self.lanes[index]
            if record.round > lane.round:
                kept = [a.signed for a in record.admitted if a.organisation in lane.members]
                self._record(index, record.round, Outcome(kept))

    def attribute(self, prompt: str, response: str | None, method: str) -> "TokenTrace":
        """Trace every token of a response, or of the model's own when it is None, to those who taught it.

        Raises UsageError for bad input; see `provenance.served.trace`.
        """
        from provenance.served import trace  # noqa: PLC0415 - the base model's libraries, which a round does not need

        return trace(self.run, prompt, response, method)

    def _train_round(self, grid: Grid, number: int) -> None:
        if attempts := max(lane.attempts for lane in self.lanes):
            # Whoever was missing gets time to come back, twice as long each time.
            time.sleep(min(_LONGEST_PAUSE, self.retry_pause * 2 ** (attempts - 1)))
        self.bindings.refresh(grid)
        self._consult(grid, number)
        for ask, reply in self._exchange(grid, self._asks(number)):
            self._receive(ask, reply)
        self._close(number)

    def _consult(self, grid: Grid, number: int) -> None:
        """Gather the agents' bids for a round: those that came with the last round, and those asked for apart."""
        if self.genesis.policy(number) != "q-learning":
            return
        open_lanes = [lane for lane in self.lanes if lane.lacks(number)]
        found = {lane.index: coming(lane, self.genesis) for lane in open_lanes}
        for (index, organisation), reply in self._exchange(grid, self._offer_asks(number, found)):
            try:
                wanted = BidRequest(self.genesis, organisation, index, self.lanes[index].generation, number)
                found[index][organisation] = answered(reply, wanted)
            except RejectedError as error:
                found[index][organisation] = ABSTAIN
                self.events.write("bid-rejected", round=number, organisation=organisation, reason=printable(str(error)))
        self._bids = {i: {a: bid for a, bid in bids.items() if bid != ABSTAIN} for i, bids in found.items()}
        for index, bids in found.items():
            self.events.write("bids", lane=index, round=number, bids={a: asdict(bid) for a, bid in bids.items()})

    def _offer_asks(self, number: int, found: Mapping[int, Mapping[Address, Bid]]) -> Iterator[tuple[Ask, Message]]:
        for index, known in found.items():
            lane = self.lanes[index]
            for organisation in lane.members:
                node = self.bindings.nodes.get(organisation)
                if organisation in known or node is None or organisation in self.revoked():
                    continue
                paid = self.rewards.paid(index, organisation) if self.rewards else {}
                query = wire.OfferQuery(
                    self.genesis, organisation, index, lane.generation, number, wire.traffic(lane.state), paid
                )
                yield (index, organisation), Message(query.to_content(), node, wire.OFFER, group_id=str(number))

    def _shown(self, index: int) -> list[Mapping[Address, Observation]]:
        """What the rounds of a lane's lineage showed, with their credit."""
        if self.rewards:
            self.rewards.restore(index, self.rule.initial(self.fresh))
        return [observations_of(s.value, self._credit(s.value)) for s in self.run.lineage(index)]

    def _credit(self, record: RoundRecord) -> Mapping[Address, float]:
        return self.rewards.of(record.lane, record.round) if self.rewards else {}

    def _exchange(self, grid: Grid, messages: Iterable[tuple[K, Message]]) -> Iterator[tuple[K, Message | None]]:
        """Send messages and yield the replies.

        Raises RunError when a worker of a simulation has died: Flower would go on giving it messages, all in vain, and
        organisations that did nothing wrong would be rejected. In a deployment it is one organisation that fails.
        """
        for key, reply in exchange(grid, messages, self.timeout):
            if reply is not None and reply.has_error() and self._worker_died(reply.error.code):
                raise RunError(f"a worker of the simulation died: resume the run ({last_line(reply.error.reason)})")
            yield key, reply

    def _worker_died(self, code: int) -> bool:
        return code == _UNKNOWN_ERROR and all(member.derived for member in self.genesis.organisations)

    def _asks(self, number: int) -> Iterator[tuple[Ask, Message]]:
        choose = POLICIES[self.genesis.policy(number)]
        self._outcomes = {lane.index: Outcome() for lane in self.lanes if lane.lacks(number)}
        asked = {index: list(choose(self._question(index, number))) for index in self._outcomes}
        everyone = [organisation for members in asked.values() for organisation in members]
        self.events.write("round-started", round=number, rounds=self.rounds, asked=everyone)
        for index, organisations in asked.items():
            for organisation in organisations:
                if organisation in self.revoked():
                    self._outcomes[index].reject(organisation, Reason.REVOKED, "its registration has ended")
                elif (node := self.bindings.nodes.get(organisation)) is not None:
                    task = self._task(index, organisation, Composition.of(self.lanes[index].state))
                    yield (index, organisation), Message(task.to_content(), node, wire.TRAIN, group_id=str(number))
                else:
                    self._outcomes[index].reject(organisation, Reason.NOT_CONNECTED, "no node speaks for it")

    def _question(self, index: int, number: int) -> SelectionContext:
        genesis = self.genesis
        return SelectionContext(
            seed=genesis.seed,
            members=self.lanes[index].members,
            number=number,
            full=Bid(genesis.training.local_steps, genesis.rank),
            fraction=genesis.participation.fraction,
            quorum=genesis.participation.quorum,
            examples=genesis.examples,
            history=self._history[index],
            bids=self._bids.get(index, {}),
        )

    def _task(self, index: int, organisation: Address, to_send: Composition) -> wire.Task:
        lane = self.lanes[index]
        return wire.Task(
            genesis=self.genesis,
            organisation=organisation,
            lane=index,
            generation=lane.generation,
            round=lane.round + 1,
            openings=lane.openings,
            parent=lane.head,
            salts=lane.salts,
            served=to_send,
            paid=self.rewards.paid(index, organisation) if self.rewards else {},
        )

    def _receive(self, ask: Ask, reply: Message | None) -> None:
        """Admit one reply, or note why not; either way it can be dropped afterwards."""
        index, organisation = ask
        outcome = self._outcomes[index]
        try:
            signed, update = self._admitted(index, organisation, reply)
        except RejectedError as error:
            self.events.write("rejected", **asdict(outcome.reject(organisation, error.reason, error.detail)))
        else:
            self.run.artifacts.put(update, self.lanes[index].members)
            self.nonces.add(signed.value.nonce)
            outcome.admitted.append(signed)
            metrics = signed.value.metrics
            doubts = {name: metrics[name] for name in ("trusting", "behind") if name in metrics}
            self.events.write("admitted", organisation=organisation, loss=metrics.get("loss"), **doubts)
        if reply is not None and reply.has_content():
            wire.release(reply.content)

    def _admitted(
        self, index: int, organisation: Address, reply: Message | None
    ) -> tuple[Signed[UpdateManifest], AdapterState]:
        if organisation in self.revoked():
            raise RejectedError(Reason.REVOKED, "its registration ended during the round")
        if reply is None:
            raise RejectedError(Reason.NO_REPLY, f"nothing came within {self.timeout:g} s")
        if reply.has_error():
            raise RejectedError(Reason.CLIENT_ERROR, last_line(reply.error.reason))
        try:
            if refusal := wire.Refusal.from_content(reply.content):
                raise RejectedError(Reason(refusal.reason), refusal.detail)
            parsed = wire.Reply.from_content(reply.content)
        except FormatError as error:
            raise RejectedError(Reason.MALFORMED, str(error)) from error
        return admit(parsed, self._expected(index, organisation))

    def _expected(self, index: int, organisation: Address) -> Expected:
        lane = self.lanes[index]
        return Expected(
            genesis=self.genesis,
            organisation=organisation,
            lane=index,
            generation=lane.generation,
            round=lane.round + 1,
            parent=lane.parent(self.genesis),
            shapes=self.rule.shapes(lane.state, self.fresh),
            nonces=self.nonces,
        )

    def _close(self, number: int) -> None:
        """Aggregate, record and commit every lane of this round; raises QuorumError after too many attempts."""
        for index, outcome in self._outcomes.items():
            self._record(index, number, outcome)
        for lane in self.lanes:
            if lane.attempts > self.genesis.participation.retries:
                raise QuorumError(
                    f"lane {lane.index}, round {number}: below the quorum of {self.genesis.participation.quorum} "
                    f"{lane.attempts} times"
                )

    def _record(self, index: int, number: int, outcome: Outcome) -> None:
        lane = self.lanes[index]
        admitted = self._quorate(outcome)
        updates = [WeightedUpdate(a.organisation, a.weight, self._stored(a)) for a in admitted]
        state, residual = self.rule.aggregate(lane.state, updates) if updates else (lane.state, 0.0)
        record = RoundRecord(
            genesis=self.genesis.digest,
            lane=index,
            generation=lane.generation,
            round=number,
            attempt=lane.attempts + 1,
            parent=lane.parent(self.genesis),
            previous=lane.previous,
            rule=self.rule.name,
            admitted=admitted,
            rejected=tuple(sorted(outcome.rejected, key=lambda r: by_address(r.organisation))),
            aggregate=self.run.artifacts.put(state, lane.members),
            residual=residual,
        )
        signed, salts = record.sign(self.key, self.genesis.chain), Salts.draw(record)
        self.run.append(signed, salts)
        self.lanes[index] = lane.after(signed, salts, state)
        self.events.write("round-closed", lane=index, round=number, attempt=record.attempt, admitted=len(admitted))
        if admitted:
            if self.rewards and not self.genesis.training.calibrates(number):
                credit = self.rewards.credit(record, state)
                self.events.write("credited", lane=index, round=number, **credit)
            self._history[index].append(observations_of(record, self._credit(record)))
            self.commit(record)

    def _quorate(self, outcome: Outcome) -> tuple[Admitted, ...]:
        """The admitted with their weights, in order of address; none of them below the quorum."""
        if len(outcome.admitted) < self.genesis.participation.quorum:
            for signed in outcome.admitted:
                outcome.reject(signed.value.organisation, Reason.BELOW_QUORUM, f"update {signed.value.update}")
            return ()
        examples = self.genesis.examples
        by_organisation = {signed.value.organisation: signed for signed in outcome.admitted}
        p = weights({address: examples[address] for address in by_organisation})
        return tuple(Admitted(by_organisation[address], weight) for address, weight in p.items())

    def _stored(self, admitted: Admitted) -> Callable[[], AdapterState]:
        return partial(self.run.artifacts.open, admitted.signed.value.update)

    def _evaluate_round(self, grid: Grid, number: int) -> MetricRecord:
        losses: dict[Address, dict[str, float]] = {}
        for organisation, reply in self._exchange(grid, self._evaluation_asks(number)):
            if measured := losses_in(reply):
                losses[organisation] = measured
            elif refusal := refusal_in(reply):
                self.events.write("objected", round=number, organisation=organisation, detail=printable(refusal.detail))
        composed = self.served
        validation = dict(self.validate(composed))
        self.events.write("evaluated", round=number, aggregate=composed.digest, losses=losses, validation=validation)
        self.track(curves(self.genesis.names, losses, validation), number)
        return means(list(losses.values()))

    def _evaluation_asks(self, number: int) -> Iterator[tuple[Address, Message]]:
        composed = self.served  # once, for all
        first = {organisation: lane for lane in reversed(self.lanes) for organisation in lane.members}
        for lane in self.lanes:
            for organisation in (o for o in lane.members if first[o] is lane):
                if (node := self.bindings.nodes.get(organisation)) is not None:
                    content = self._task(lane.index, organisation, composed).to_content()
                    yield organisation, Message(content, node, wire.EVALUATE, group_id=str(number + 1))
