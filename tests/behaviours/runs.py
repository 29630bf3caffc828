"""Runs made without a model: real keys, manifests, rules, records, store and ledger over layers of a few numbers.

A `Federation` plays the coordinator and the organisations. It lies where `Lies` tells it to: an organisation before it
signs its manifest, the coordinator before it signs a record or commits it.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from chain.commitments import PrivateCommitment, private_commitment
from chain.private import PrivateHead
from chain.queue import CommitQueue
from core import keys, lora, seeds
from core.adapter import AdapterState
from core.aggregation import RULES, Rule, WeightedUpdate, by_address, rank_of, weights
from core.canonical import ZERO_DIGEST, Address, Digest, digest
from core.erasures import Attestation, ErasureRequest
from core.generations import GenerationRecord
from core.genesis import Base, Genesis, Participation, PrivateChain, Training
from core.keys import Domain, Key
from core.ledger import Anchor, Ledger, MemoryLedger, RoundCommitment
from core.lora import Layout
from core.model_selection import best_of
from core.names import Name
from core.round_key import RoundKey
from core.rounds import Admitted, Best, Rejection, RoundRecord, Salts, commit_to
from core.signed import Signed
from core.storage.readers import Readers
from core.storage.run_folder import RunFolder
from core.update import Bid, Organisation, UpdateManifest
from core.wire import Packed, Rounded
from tests.waiting import until

NAMES = ("coding", "financial", "mathematical", "medical")
LAYOUT = Layout.of({"layers.0.down": (24, 20), "layers.0.up": (20, 24)}, rank=2)
SEED = 7
COORDINATOR = keys.derive(SEED, "coordinator")
DAY = "2026-03-01"


@dataclass(frozen=True)
class Lies:
    """What is changed before it is signed or committed; the first argument says who and where."""

    genesis: Callable[[Genesis], Genesis] = lambda genesis: genesis
    update: Callable[[str, int, AdapterState], AdapterState] = lambda _name, _round, update: update
    manifest: Callable[[str, UpdateManifest], UpdateManifest] = lambda _name, manifest: manifest
    record: Callable[["Federation", RoundRecord], RoundRecord] = lambda _federation, record: record
    generation: Callable[[GenerationRecord], GenerationRecord] = lambda generation: generation
    commitment: Callable[[RoundCommitment], RoundCommitment] = lambda commitment: commitment
    private: Callable[[PrivateCommitment], PrivateCommitment] = lambda commitment: commitment


def compared(*losses: float, **settings: Any) -> Lies:
    """No lie: a federation that compares its rounds, whose states have these losses; `settings` are of its genesis."""

    def record(federation: "Federation", honest: RoundRecord) -> RoundRecord:
        lane = federation.lanes[honest.lane]
        own = replace(honest, validation_loss=losses[honest.round - 1])
        best = best_of(own, lane.best)
        lane.best = best
        return replace(own, best=best)

    return Lies(genesis=lambda genesis: replace(genesis, **settings), record=record)


@dataclass
class LaneState:
    """The head of a lane."""

    state: AdapterState
    parent: Digest
    previous: Digest
    members: tuple[Address, ...]
    generation: int = 0
    round: int = 0
    committed: Digest = ZERO_DIGEST
    best: Best | None = None


class MemoryPrivate:
    """A private chain without a chain: its blocks, and the head that the public chain was told last."""

    def __init__(self, anchor_every: int = 1) -> None:
        self.domain = Domain(1, keys.derive(SEED, "private contract").address)
        self.anchor_every = anchor_every
        self.rounds: dict[RoundKey, tuple[PrivateCommitment, Anchor]] = {}
        self.organisations: frozenset[Address] = frozenset()
        self.head: PrivateHead | None = None

    def commit(self, commitment: PrivateCommitment) -> Anchor:
        number = len(self.rounds) + 1
        anchor = Anchor(self.domain.chain_id, self.domain.contract, f"0x{number:064x}", number)
        self.rounds[commitment.key] = commitment, anchor
        if commitment.key.round % self.anchor_every == 0:
            self.head = PrivateHead(self.domain.chain_id, number, self.block_hash(number))
        return anchor

    def members(self, run: Digest) -> frozenset[Address]:
        return self.organisations

    def read(self, key: RoundKey) -> tuple[PrivateCommitment, Anchor] | None:
        return self.rounds.get(key)

    def anchored(self, run: Digest) -> PrivateHead | None:
        return self.head

    def holds(self, head: PrivateHead) -> bool:
        return head == PrivateHead(self.domain.chain_id, head.number, self.block_hash(head.number))

    def block_hash(self, number: int) -> Digest:
        return digest("block", f"{number}".encode())


@dataclass(repr=False)
class Federation:
    """A run in a folder, and everyone who takes part in it."""

    run: RunFolder
    genesis: Genesis
    members: Mapping[str, Key]
    ledger: Ledger
    fresh: AdapterState
    lies: Lies
    lanes: list[LaneState] = field(default_factory=list)
    private: MemoryPrivate | None = None
    queue: CommitQueue[RoundCommitment] = field(init=False)
    private_queue: CommitQueue[PrivateCommitment] = field(init=False)

    @property
    def rule(self) -> Rule:
        return RULES[self.genesis.rule]

    def names(self, lane: int) -> list[str]:
        """Who learns in a lane, in canonical order."""
        names = {key.address: name for name, key in self.members.items()}
        return [names[address] for address in self.lanes[lane].members]

    def close(self, lane: int, attempt: int = 1) -> RoundRecord:
        """A round of everyone: recorded, committed and anchored."""
        here, names = self.lanes[lane], self.names(lane)
        p = weights(
            {o.address: o.examples for o in self.genesis.organisations if o.name in names}, self.genesis.server_rate
        )
        honest = zip(p, names, strict=True)
        updates = [
            WeightedUpdate(address, p[address], self.packed(self.update(lane, name)).state) for address, name in honest
        ]
        state, residual = self.rule.aggregate(here.state, updates)
        signed = [self._signed(lane, name) for name in names]
        admitted = tuple(Admitted(s, w) for s, w in zip(signed, p.values(), strict=True))
        return self._record(lane, attempt, admitted, state, residual)

    def fail(self, lane: int, attempt: int) -> RoundRecord:
        """An attempt below the quorum: nobody answered."""
        rejected = tuple(Rejection(address, "no-reply", "nothing came") for address in self.lanes[lane].members)
        return self._record(lane, attempt, (), self.lanes[lane].state, 0.0, rejected)

    def _signed(self, lane: int, name: str) -> Signed[UpdateManifest]:
        here, key = self.lanes[lane], self.members[name]
        update = self.lies.update(name, here.round + 1, self.update(lane, name))
        manifest = UpdateManifest(
            genesis=self.genesis.digest,
            organisation=key.address,
            lane=lane,
            generation=here.generation,
            round=here.round + 1,
            parent=here.parent,
            update=self.run.artifacts.put(self.packed(update), self.genesis.lanes[lane]),
            wire=self.genesis.wire,
            examples=10,
            tokens=1000,
            bid=Bid(5, 2),
            nonce=digest("nonce", f"{lane} {here.generation} {here.round} {name}".encode()),
            metrics={"loss": 2.5},
        )
        return self.lies.manifest(name, manifest).sign(key, self.genesis.chain)

    def packed(self, update: AdapterState) -> Packed:
        """An update as it travels."""
        return Packed.of(update, self.genesis.wire)

    def update(self, lane: int, name: str) -> AdapterState:
        """What a member would honestly send in the lane's next round."""
        here = self.lanes[lane]
        seed = hashlib.sha256(f"{name} {here.round}".encode()).digest()
        random = np.random.default_rng(int.from_bytes(seed, "big"))
        shapes = self.rule.shapes(here.state, self.fresh)
        return AdapterState({n: random.normal(0, 0.01, shape).astype(np.float32) for n, shape in shapes.items()})

    def _record(
        self,
        lane: int,
        attempt: int,
        admitted: tuple[Admitted, ...],
        state: AdapterState,
        residual: float,
        rejected: tuple[Rejection, ...] = (),
    ) -> RoundRecord:
        here = self.lanes[lane]
        aggregate = self.run.artifacts.put(state, here.members)
        honest = RoundRecord(
            self.genesis.digest, lane, here.generation, here.round + 1, attempt, here.parent, here.previous,
            self.rule.name, admitted, rejected, aggregate, residual, **Rounded.of(state, self.genesis.wire)._asdict(),
        )  # fmt: skip
        record = self.lies.record(self, honest)
        salts = Salts.draw(record)
        self.run.append(record.sign(COORDINATOR, self.genesis.chain), salts)
        here.previous = record.digest
        if admitted:
            self._commit(commit_to(record, salts, here.committed), private_commitment(record, salts))
            here.state, here.parent, here.round = state, record.digest, record.round
            here.committed = salts.aggregate_commitment(record)
        return record

    def fork(self, lane: int, parent_round: int, without: str) -> GenerationRecord:
        """An erasure: the lane goes on from an earlier round of its line, without one of its members."""
        here, line = self.lanes[lane], self.run.lineage(lane)
        parent = next((s.value for s in line if s.value.round == parent_round), None)
        gone = self.members[without].address
        attested = attest(self.genesis, self.members[without], lane, here.generation + 1, parent)
        honest = GenerationRecord(
            genesis=self.genesis.digest,
            lane=lane,
            generation=here.generation + 1,
            parent_generation=parent.generation if parent else 0,
            parent_round=parent_round,
            parent=parent.digest if parent else self.genesis.digest,
            previous=here.previous,
            rounds=attested.value.rounds,
            erasure=attested.value.erasure,
            members=tuple(member for member in here.members if member != gone),
        )
        generation = self.lies.generation(honest)
        self.run.attest(attested)
        hidden = attested.value.hide(attested.value.digest)
        self.ledger.attest(self.genesis.digest, honest.erasure, lane, hidden)
        self.ledger.open_generation(honest.opening)
        self.run.open_generation(generation.sign(COORDINATOR, self.genesis.chain))
        self.lanes[lane] = LaneState(
            state=self.run.artifacts.open(parent.aggregate) if parent else self.rule.initial(self.fresh),
            parent=generation.parent,
            previous=generation.digest,
            members=generation.members,
            generation=generation.generation,
            round=parent_round,
            committed=self.run.salts(parent).aggregate_commitment(parent) if parent else ZERO_DIGEST,
        )
        return generation

    def _commit(self, commitment: RoundCommitment, private: PrivateCommitment) -> None:
        self.queue.put(self.lies.commitment(commitment))
        if self.private:
            self.private_queue.put(self.lies.private(private))
        # A queue sends by itself: a test that names a line of its file needs every anchor behind its own commitment.
        queues = (self.queue, self.private_queue) if self.private else (self.queue,)
        until(lambda: not any(queue.pending() and queue._thread.is_alive() for queue in queues))


def attest(
    genesis: Genesis, asking: Key, lane: int, generation: int, parent: RoundRecord | None
) -> Signed[Attestation]:
    """What is signed before a fork that destroys nothing."""
    nonce = digest("nonce", f"{lane} {generation}".encode())
    lanes = genesis.lanes_of(asking.address)
    plain = ErasureRequest(genesis.digest, asking.address, "replay", lanes, ZERO_DIGEST, 0, "a test", DAY, nonce)
    request = plain.sign(asking, genesis.chain)
    start = parent.round if parent else 0
    return Attestation(
        request, lane, generation, parent.generation if parent else 0, start, start, genesis.training.rounds,
        (asking.address,), (), (), (), 0, 0, DAY, hashlib.sha256(nonce.encode()).hexdigest(),
    ).sign(COORDINATOR, genesis.chain)  # fmt: skip


def found(
    folder: Path,
    *,
    rule: str = "frozen-a",
    organisations: int = 2,
    lanes: int = 1,
    composition: str = "sum",
    rounds: int = 2,
    ledger: Ledger | None = None,
    private: MemoryPrivate | None = None,
    auditors: tuple[Key, ...] = (),
    lies: Lies | None = None,
    layout: Layout = LAYOUT,
) -> Federation:
    """A federation before its first round; organisation k is the k-th of `NAMES`, then organisation-k."""
    lies, ledger = lies or Lies(), ledger or MemoryLedger()
    names = [NAMES[k] if k < len(NAMES) else f"organisation-{k}" for k in range(organisations)]
    members = {name: keys.derive(SEED, name) for name in names}
    fresh = lora.fresh(layout, seeds.shared(SEED))
    honest = _genesis(folder.name, rule, lanes, rounds, ledger, members, fresh)
    honest = replace(
        honest,
        composition=composition,
        auditors=tuple(key.address for key in auditors),
        private=_fixed(private) if private else None,
    )
    genesis = lies.genesis(honest)
    run = RunFolder(folder, key=COORDINATOR)
    public = tuple(members[o.name].public for o in genesis.organisations)
    run.begin(genesis, Readers(COORDINATOR.public, public, tuple(key.public for key in auditors)))
    if private:
        private.organisations = frozenset(o.address for o in genesis.organisations)
    if rule == "frozen-a":
        run.artifacts.put(lora.factor(fresh, "A"))
    ledger.open_run(genesis.digest, [o.address for o in genesis.organisations])
    federation = Federation(run, genesis, members, ledger, fresh, lies, private=private)
    initial = federation.rule.initial(fresh)
    federation.lanes = [LaneState(initial, genesis.digest, genesis.digest, learning) for learning in genesis.lanes]
    return federation


def build(folder: Path, *, failed: Mapping[tuple[int, int], int] | None = None, **choices: object) -> Federation:
    """A federation with all its rounds done and anchored.

    `failed` says how often (lane, round) was below its quorum first; `choices` are those of `found`.
    """
    federation = found(folder, **choices)  # type: ignore[arg-type] # passed through
    advance(federation, federation.genesis.training.rounds, failed or {})
    return federation


def advance(federation: Federation, until: int, failed: Mapping[tuple[int, int], int] = MappingProxyType({})) -> None:
    """Start or resume a federation, do its rounds up to `until`, and wait until they are anchored."""
    federation.queue = CommitQueue(federation.run.queue, federation.ledger)
    if federation.private:
        federation.private_queue = CommitQueue(federation.run.private_queue, federation.private)
    for number in range(federation.lanes[0].round + 1, until + 1):
        for lane in range(len(federation.lanes)):
            misses = failed.get((lane, number), 0)
            for attempt in range(1, misses + 1):
                federation.fail(lane, attempt)
            federation.close(lane, misses + 1)
    assert federation.queue.close(60.0) == 0
    assert not federation.private or federation.private_queue.close(60.0) == 0


def _fixed(private: MemoryPrivate) -> PrivateChain:
    return PrivateChain(private.domain.chain_id, private.domain.contract, private.anchor_every)


def _genesis(
    run: str, rule: str, lanes: int, rounds: int, ledger: Ledger, members: Mapping[str, Key], fresh: AdapterState
) -> Genesis:
    organisations = sorted(
        (
            Organisation(key.address, Name(name), 10 * (k + 1), derived=True)
            for k, (name, key) in enumerate(members.items())
        ),
        key=lambda organisation: by_address(organisation.address),
    )
    addresses: list[Address] = [organisation.address for organisation in organisations]
    return Genesis(
        run=run,
        salt=hashlib.sha256(run.encode()).hexdigest(),
        coordinator=COORDINATOR.address,
        chain=ledger.domain,
        private=None,
        base=Base("none", digest("base", b""), "none"),
        rank=rank_of(fresh),
        alpha=4.0,
        shared_a=lora.factor(fresh, "A").digest,
        rule=rule,
        lanes=tuple(tuple(addresses[lane::lanes]) for lane in range(lanes)),
        composition="sum",
        organisations=tuple(organisations),
        validation=digest("validation", b"[]"),
        auditors=(),
        seed=SEED,
        training=Training(rounds, 5, 0.0, 2, 1, 64, 1e-3, False, 0.0, 8),
        participation=Participation("all", 1.0, 1, 3),
        norm_bound=10.0,
        environment={"numpy": np.__version__},
    )
