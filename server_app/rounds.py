"""Rounds: the state of a run's lanes, and the one writer of its records.

A round is begun, takes the admitted update or the rejection of every organisation asked, and is closed: quorum,
weights, aggregate, signed RoundRecord, salts, commitment. The strategy does that with the organisations' replies, an
erasure with updates of an earlier generation.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import NamedTuple

from agents.rewards import Rewards
from core.adapter import AdapterState
from core.aggregation import RULES, WeightedUpdate, by_address
from core.canonical import ZERO_DIGEST, Address, Digest, to_json
from core.clipping import clipping
from core.composition import Composition
from core.credit import CreditRecord
from core.errors import QuorumError
from core.escape import one_line
from core.keys import Key
from core.lanes import Lane, served
from core.messages.codec import EARLIER_BYTES, traffic
from core.messages.queries import OfferQuery
from core.messages.training import Reply, Task
from core.model_selection import Measures, best_of
from core.policies import READ_LOSSES, READ_SECONDS, Observation, bids_for, observations_of, selected
from core.privacy import PrivacyClaims
from core.rejections import Reason
from core.robust import counted, factors, likenesses, scaled, shares
from core.round_key import RoundKey
from core.rounds import Admitted, Rejection, RoundRecord, Salts, ShownRecord, weighted
from core.signed import Signed
from core.storage.events import EventLog
from core.storage.run_folder import RunFolder
from core.update import Bid, Offer, UpdateManifest
from core.wire import Rounded
from server_app.admission import AdmissionContext

TOLD_SHARE = 0.1
"""Of the rounds' time, so much goes at most into the effects of updates, which are measured for people.

What one evaluation takes beyond that is owed by the rounds that follow.
"""


class Recipient(NamedTuple):
    """An organisation in one of its lanes, whom a message asks."""

    lane: int
    organisation: Address


@dataclass
class OpenRound:
    """One lane's round before it is closed; `seconds` are those of the admitted updates' replies.

    `late` are the organisations that were asked and have not answered, `grace` the seconds that it has waited for them
    beyond its quorum, `delays` by how many rounds admitted updates are late.
    """

    admitted: list[Signed[UpdateManifest]] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)
    late: list[Address] = field(default_factory=list)
    delays: dict[Address, int] = field(default_factory=dict)
    offers: Sequence[Signed[Offer]] = ()
    seconds: dict[Address, float] = field(default_factory=dict)
    grace: float = 0.0

    def reject(self, organisation: Address, reason: Reason, detail: str) -> Rejection:
        """Note why an organisation is not in the round."""
        rejection = Rejection(organisation, reason, one_line(detail))
        self.rejected.append(rejection)
        return rejection

    @property
    def commonest_reason(self) -> str:
        """Why most of the organisations that were asked are not in the round, and how many of them."""
        others = [rejection for rejection in self.rejected if rejection.reason != Reason.BELOW_QUORUM]
        if not others:
            return "nobody was asked"
        reasons = Counter(f"{rejection.reason}: {rejection.detail}" for rejection in others)
        [(reason, count)] = reasons.most_common(1)
        return f"{reason} ({count} of {len(others)} rejected)"


class Rounds:
    """A run's lanes at their heads; restored from the records, so that a run can be resumed at any round.

    `run` holds the genesis, `key` is the coordinator's, `fresh` the adapter before any training, `commit` queues a
    record for the chain. Where the policy needs it, `rewards` credits every round. Without a shared validation
    set there are no `measures`.
    """

    def __init__(
        self,
        run: RunFolder,
        key: Key,
        fresh: AdapterState,
        events: EventLog,
        commit: Callable[[RoundRecord], object],
        rewards: Rewards | None = None,
        measures: Measures | None = None,
    ) -> None:
        self.run, self.key, self.fresh, self.events = run, key, fresh, events
        self.commit, self.rewards, self.measures = commit, rewards, measures
        self.genesis = run.genesis
        self.rule = RULES[self.genesis.rule]
        self._spare = 0.0
        """Seconds that the effects of updates may take; below zero what they have taken too much."""
        self.nonces: set[Digest] = set()
        self._claims = PrivacyClaims(self.genesis)
        self._objecting: set[Recipient] = set()
        """Those that object to what the open round sent them, and would again."""
        for signed in run.records():
            self._note_members(signed.value)
        self.lanes: list[Lane] = []
        self.history: list[list[Mapping[Address, Observation]]] = []
        """For every lane, the observations of its rounds so far, by which policies choose."""
        self._lines: list[list[RoundRecord]] = []
        """For every lane, these rounds."""
        self._seen: list[dict[Address, int]] = [{} for _ in self.genesis.lanes]
        """For every lane, the newest round that each organisation has certainly been shown: it signed what follows."""
        self.open: dict[int, OpenRound] = {}
        """By lane the rounds that are not closed."""
        for index in range(len(self.genesis.lanes)):
            self.restore(index)

    @property
    def round(self) -> int:
        """The last round that every lane has closed."""
        return min((lane.round for lane in self.lanes if not lane.complete), default=self.last)

    @property
    def last(self) -> int:
        """The round that the last lane is complete with."""
        return max(lane.last for lane in self.lanes)

    @property
    def served(self) -> Composition:
        """The composition that the lanes serve now."""
        return served(self.genesis, self.lanes)

    def restore(self, index: int) -> None:
        """Set a lane to where its records end; those of a new generation end at an earlier round."""
        initial = self.run.initial(self.fresh)
        signed_line = self.run.lineage(index)
        line = [signed.value for signed in signed_line]
        if self.rewards:
            self.rewards.restore(index, line, initial)
        self._seen[index].clear()
        for record in line:
            self._note_seen(record)
        # Slices, since the first time, while this is made, the lists end here.
        self.lanes[index : index + 1] = [Lane.restore(self.run, index, signed_line, initial)]
        self._lines[index : index + 1] = [line]
        self.history[index : index + 1] = [[observations_of(record, self._credit(record)) for record in line]]

    def begin(self, number: int, offers: Mapping[int, Sequence[Signed[Offer]]] = MappingProxyType({})) -> list[Lane]:
        """Begin a round, with the agents' offers for it, in every lane that lacks it; returns those."""
        lanes = [lane for lane in self.lanes if lane.lacks(number)]
        self.open = {lane.index: OpenRound(offers=offers.get(lane.index, ())) for lane in lanes}
        return lanes

    def bids(self, lane: Lane, offers: Iterable[Signed[Offer]] = ()) -> dict[Address, Bid]:
        """The bids for a lane's next round: those that came with its last one, and these offers."""
        head = lane.head.value if lane.head else None
        return bids_for(self.genesis, head, [signed.value for signed in offers], lane.members)

    def select(self, lane: Lane) -> list[Recipient]:
        """The organisations that the policy asks in a lane's round, which has begun."""
        bids = self.bids(lane, self.open[lane.index].offers)
        chosen = selected(self.genesis, lane.members, lane.round + 1, self.history[lane.index], bids, lane.failed)
        return [Recipient(lane.index, organisation) for organisation in chosen]

    def offer_query(self, recipient: Recipient) -> OfferQuery:
        """The query for an agent's bid for its lane's next round."""
        lane = self.lanes[recipient.lane]
        key = lane.next_key(self.genesis)
        paid = self.rewards.paid(*recipient) if self.rewards else {}
        size = traffic(lane.state, self.genesis.wire)
        return OfferQuery(self.genesis, recipient.organisation, lane.index, key.generation, key.round, size, paid)

    def task(self, recipient: Recipient, to_send: Composition, *, measure: bool = False) -> Task:
        """The task that an organisation is sent: train, evaluate, or both, `to_send` at its lane's next round."""
        lane = self.lanes[recipient.lane]
        return Task(
            genesis=self.genesis,
            organisation=recipient.organisation,
            lane=lane.index,
            generation=lane.generation,
            round=lane.round + 1,
            openings=lane.openings,
            earlier=self._earlier(lane, recipient.organisation),
            parent=lane.head,
            salts=lane.salts,
            served=to_send,
            paid=self.rewards.paid(*recipient) if self.rewards else {},
            measure=measure,
        )

    def _earlier(self, lane: Lane, organisation: Address) -> tuple[ShownRecord, ...]:
        """The records between the newest that an organisation has certainly been shown and a lane's head, in order."""
        seen, found, size = self._seen[lane.index].get(organisation, 0), list[ShownRecord](), 0
        newer = lane.head
        while newer and newer.value.round > seen + 1 and (before := self.run.before(newer.value)):
            shown = ShownRecord(before, self.run.salts(before.value))
            # An organisation that was away for longer objects: a task has a greatest size.
            if (size := size + len(to_json(shown.to_dict()))) > EARLIER_BYTES:
                break
            found.append(shown)
            newer = before
        return tuple(reversed(found))

    def _note_seen(self, record: RoundRecord) -> None:
        seen = self._seen[record.lane]
        for manifest in (admitted.signed.value for admitted in record.admitted):
            # A re-aggregated update may have grown from a record that is not in this line, a late one from an older.
            if manifest.parent == record.parent or manifest.generation == record.generation:
                seen[manifest.organisation] = max(seen.get(manifest.organisation, 0), manifest.round - 1)

    def _note_members(self, record: RoundRecord) -> None:
        """Remember the nonces and claims of a record's updates."""
        for manifest in (admitted.signed.value for admitted in record.admitted):
            self.nonces.add(manifest.nonce)
            if manifest.generation == record.generation:  # a re-aggregated one has claimed what it did before
                self._claims.note(manifest)

    def admission(self, recipient: Recipient, delay: int = 0) -> AdmissionContext:
        """The requirements on an organisation's update to the open round, or to the one before for one that is late."""
        lane = self.lanes[recipient.lane]
        shapes = self.rule.shapes(lane.state, self.fresh)
        key, parent = lane.next_key(self.genesis), lane.parent(self.genesis)
        if delay and lane.head:
            key, parent = replace(key, round=key.round - delay), lane.head.value.parent
        return AdmissionContext(self.genesis, recipient.organisation, key, parent, shapes, self.nonces, self._claims)

    def admit(self, recipient: Recipient, reply: Reply, seconds: float = 0.0, delay: int = 0) -> None:
        """Check an update and store it for the open round; raises RejectedError, after which it is to be rejected.

        `seconds` passed from the task to the reply; `delay` is 1 for a late update, of the round before.
        """
        signed, update = self.admission(recipient, delay).admit(reply)
        self.run.artifacts.put(update, self.lanes[recipient.lane].members)
        self.nonces.add(signed.value.nonce)
        self._objecting.discard(recipient)
        here = self.open[recipient.lane]
        here.admitted.append(signed)
        here.seconds[recipient.organisation], here.delays[recipient.organisation] = seconds, delay
        metrics = signed.value.metrics
        doubts = {name: metrics[name] for name in ("trusting", "behind") if name in metrics}
        doubts |= {"delay": delay} if delay else {}
        self.events.write("admitted", organisation=recipient.organisation, loss=metrics.get("loss"), **doubts)

    def reject(self, recipient: Recipient, reason: Reason, detail: str, *, lasting: bool = False) -> Rejection:
        """Record in the open round why an organisation has no part in it; `lasting`: nor has it when asked again."""
        if lasting:
            self._objecting.add(recipient)
        return self.open[recipient.lane].reject(recipient.organisation, reason, detail)

    def has_quorum(self, index: int) -> bool:
        """Whether a lane's open round has as many updates as it needs."""
        return len(self.open[index].admitted) >= self.genesis.participation.quorum

    def next_key(self, recipient: Recipient) -> RoundKey:
        """The round that a recipient's lane is to close next."""
        return self.lanes[recipient.lane].next_key(self.genesis)

    def close(self, number: int) -> list[RoundRecord]:
        """Aggregate, record and commit the open round of every lane; returns the records.

        Raises QuorumError after too many attempts, or one after which no other can reach the quorum.
        """
        closing, self.open = self.open, {}
        records = [self._record(index, number, open_round) for index, open_round in closing.items()]
        participation = self.genesis.participation
        for index, open_round in closing.items():
            lane = self.lanes[index]
            # Those that object to what they are sent will object again: perhaps too few others are left to be asked.
            objecting = {o for o in lane.members if Recipient(index, o) in self._objecting}
            hopeless = bool(objecting) and len(lane.members) - len(objecting) < participation.quorum
            if (attempts := lane.attempts) > participation.retries or (attempts and hopeless):
                raise QuorumError(
                    f"lane {index}, round {number}: expected a quorum of {participation.quorum}, got fewer updates in "
                    f"{attempts} attempts; most often {open_round.commonest_reason}"
                )
        return records

    def reaggregate(self, index: int, records: Iterable[RoundRecord], erased: Collection[Address]) -> None:
        """Close rounds of an earlier generation anew, without the erased; those who have left taught it, too."""
        for record in records:
            lane = self.lanes[index]
            if record.round > lane.round:
                kept = [admitted for admitted in record.admitted if admitted.organisation not in erased]
                seconds = {admitted.organisation: admitted.seconds for admitted in kept}
                again = OpenRound([a.signed for a in kept], seconds=seconds, delays=record.delays)
                self._record(index, record.round, again)

    def _record(self, index: int, number: int, open_round: OpenRound) -> RoundRecord:
        lane = self.lanes[index]
        admitted = self.weigh(open_round)
        updates = weighted(admitted, self.run.artifacts.open)
        if updates:
            taken = max(open_round.seconds.values(), default=0.0)
            admitted = self._judged(index, number, admitted, updates, taken)
            found = {a.organisation: a.factor for a in admitted}
            updates = counted(self.genesis.robust, updates, found, self.genesis.membership.most_weight)
        state, residual = self.rule.aggregate(lane.state, updates) if updates else (lane.state, 0.0)
        credit = self.rewards.measure(index, number, updates, state) if self.rewards and updates else None
        loss = self.measures.loss(state) if self.measures and self.genesis.compares_rounds and updates else None
        record = RoundRecord(
            **asdict(lane.next_key(self.genesis)),
            attempt=lane.attempts + 1,
            parent=lane.parent(self.genesis),
            previous=lane.previous,
            rule=self.rule.name,
            admitted=admitted,
            rejected=tuple(sorted(open_round.rejected, key=lambda r: by_address(r.organisation))),
            aggregate=self.run.artifacts.put(state, lane.members),
            residual=residual,
            bids=tuple(sorted(open_round.offers, key=lambda offer: by_address(offer.value.organisation))),
            credit=credit.digest if credit else ZERO_DIGEST,
            late=tuple(sorted(open_round.late, key=by_address)),
            grace=open_round.grace,
            loss_bound=self._loss_bound(lane.state) if admitted else 0.0,
            validation_loss=loss,
            **Rounded.of(state, self.genesis.wire)._asdict(),
        )
        record = replace(record, best=best_of(record, lane.head.value.best if lane.head else None))
        signed, salts = record.sign(self.key, self.genesis.chain), Salts.draw(record)
        self.run.append(signed, salts, credit)
        self.lanes[index] = lane.after(self.genesis, signed, salts, state)
        self._note_seen(record)
        self._note_members(record)
        self.events.write("round-closed", lane=index, round=number, attempt=record.attempt, admitted=len(admitted))
        if admitted:
            self._settle(record, state, credit)
        return record

    def _loss_bound(self, state: AdapterState) -> float:
        """The bound of reported losses, where the policy reads them."""
        reads = self.genesis.participation.policy in READ_LOSSES
        return self.measures.loss_bound(state) if self.measures and reads else 0.0

    def _judged(
        self, index: int, number: int, admitted: Iterable[Admitted], updates: Sequence[WeightedUpdate], taken: float
    ) -> tuple[Admitted, ...]:
        """The admitted with the robust rule's factors; how each of them stands is an event, whatever the rule.

        The round has `taken` so many seconds.
        """
        robust, before, stand = self.genesis.robust, self.lanes[index].state, likenesses(updates)
        admitted = tuple(replace(a, norm=stand[a.organisation].norm if robust.clips else 0.0) for a in admitted)
        clip = clipping(self.genesis, self._lines[index], number, admitted)
        effects: Mapping[Address, float] = {}
        if self.measures and robust.rule == "validation":
            effects = self.measures.harms(before, scaled(updates, clip), robust.bound)
        elif self.measures:
            # Each costs an evaluation: of a hundred updates these took as long as the hundred trained.
            told = sorted(scaled(updates, clip), key=lambda update: stand[update.organisation].cosine)
            self._spare = min(self._spare, 0.0) + TOLD_SHARE * taken
            if self._spare >= 0:
                began = time.monotonic()
                effects = self.measures.effects(before, told, self._spare)
                self._spare -= time.monotonic() - began
        found = factors(robust, updates, clip, effects)
        share = shares(robust, updates, found, {a: likeness.norm for a, likeness in stand.items()})
        judged = {
            organisation: {**likeness._asdict(), "factor": share[organisation], "effect": effects.get(organisation)}
            for organisation, likeness in stand.items()
        }
        self.events.write("judged", lane=index, round=number, updates=judged)
        return tuple(replace(a, factor=found[a.organisation]) for a in admitted)

    def weigh(self, open_round: OpenRound) -> tuple[Admitted, ...]:
        """The admitted manifests with their weights, in order of address; none of them below the quorum."""
        if len(open_round.admitted) < self.genesis.participation.quorum:
            for manifest in (signed.value for signed in open_round.admitted):
                # Whoever is late was not asked now, or has not answered what it was asked.
                if not open_round.delays.get(manifest.organisation):
                    open_round.reject(manifest.organisation, Reason.BELOW_QUORUM, f"update {manifest.update}")
            return ()
        manifests = {signed.value.organisation: signed for signed in open_round.admitted}
        shares = self.genesis.weights({who: open_round.delays.get(who, 0) for who in manifests})
        timed = open_round.seconds if self.genesis.participation.policy in READ_SECONDS else {}
        return tuple(
            Admitted(manifests[organisation], weight, seconds=timed.get(organisation, 0.0))
            for organisation, weight in shares.items()
        )

    def _settle(self, record: RoundRecord, state: AdapterState, credit: CreditRecord | None) -> None:
        """Keep a closed round's credit, add its observations to the history, and commit it."""
        if self.rewards and credit:
            self.rewards.keep(record.lane, record.round, credit, state)
            self.events.write("credited", lane=record.lane, round=record.round, **credit.to_dict())
        self._lines[record.lane].append(record)
        self._objecting = {recipient for recipient in self._objecting if recipient.lane != record.lane}
        self.history[record.lane].append(observations_of(record, self._credit(record)))
        self.commit(record)

    def _credit(self, record: RoundRecord) -> Mapping[Address, float]:
        return self.rewards.of(record.lane, record.round) if self.rewards else {}
