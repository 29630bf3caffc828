"""What a federation needs from a chain, and a double that keeps it in memory.

A ledger holds one commitment per (run, lane, generation, round): committed once, never rewritten, its parent the
lane's head. An erasure is written down in three steps:

    attest            what the audit before it found, and what is about to be destroyed
    open_generation   a lane's head moves to an earlier round; later rounds stay on the ledger, outside the lane's line
    certify           the certificate, once everything is done

Rounds are numbered through: the first round of a generation is its parent round + 1. Nothing here is personal: digests,
an erasure's id among them, are salted before they arrive.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from core.canonical import ZERO_DIGEST, Address, Digest
from core.errors import LedgerConflictError
from core.keys import Domain
from core.round_key import RoundKey


@dataclass(frozen=True)
class RoundCommitment:
    """What one transaction says about a round.

    `parent` is the `aggregate` commitment of the lane's head (ZERO_DIGEST before its first round), `updates_root`
    the Merkle root over the salted admitted manifests, `aggregate` the salted digest of the round's record and
    of the new adapter, `count` the number of admitted updates.
    """

    key: RoundKey
    parent: Digest
    updates_root: Digest
    aggregate: Digest
    count: int


@dataclass(frozen=True)
class Anchor:
    """The receipt of a commitment: where on which chain it stands."""

    chain_id: int
    contract: Address
    transaction: str
    block: int


@dataclass(frozen=True)
class Erasure:
    """What the ledger says of an erasure. `generation` is 0 and `certificate` zero while there is none."""

    lane: int
    attestation: Digest
    certificate: Digest
    generation: int
    attested_at: int


@dataclass(frozen=True)
class GenerationOpening:
    """A lane's generation (from 1) that an erasure opens, and the round it grows from; round 0 is the beginning."""

    run: Digest
    lane: int
    generation: int
    erasure: Digest
    parent_generation: int
    parent_round: int


@dataclass(frozen=True)
class LaneHead:
    """Where a lane stands: the next round is (generation, round + 1), its parent `aggregate`."""

    generation: int
    round: int
    aggregate: Digest


class LedgerView(Protocol):
    """What anybody may ask of a ledger."""

    @property
    def domain(self) -> Domain:
        """Chain and contract, which EIP-712 signatures are bound to."""

    def members(self, run: Digest) -> frozenset[Address]:
        """The organisations of a run; empty when the run is unknown."""

    def coordinator(self, run: Digest) -> Address | None:
        """The account that alone writes a run: its opener, or whom it was handed to; None when the run is unknown."""

    def opened_by(self, run: Digest) -> Address | None:
        """The account that opened a run, whoever writes it now; None when the run is unknown."""

    def administrator(self) -> Address | None:
        """The account that administers the ledger now; None where nobody does."""

    def administers(self, account: Address) -> bool:
        """Whether an account administers the ledger, or did."""

    def opened_at(self, run: Digest) -> int:
        """The block in which a run was opened; 0 when it is unknown."""

    def read(self, key: RoundKey) -> tuple[RoundCommitment, Anchor] | None:
        """What is committed at `key`, or None."""

    def head(self, run: Digest, lane: int) -> LaneHead:
        """The lane's head; generation 0, round 0 and zero before its first round."""

    def erasure(self, run: Digest, erasure: Digest) -> Erasure | None:
        """What the ledger says of an erasure, or None."""

    def credit_root(self, run: Digest, epoch: int) -> Digest:
        """The root of the cumulative credit that was posted as an epoch, from 1; zero where none was."""

    def revoked(self, organisations: Iterable[Address]) -> dict[Address, int]:
        """Those of these organisations whose registration ended, and the block in which it did.

        From the next round on: a round whose parent was committed after that block must not admit them.
        """


class Ledger(LedgerView, Protocol):
    """A place that remembers commitments for everyone and forgets none."""

    def open_run(self, run: Digest, organisations: Iterable[Address]) -> None:
        """Register a run and its members; repeating it with the same members changes nothing.

        Raises LedgerConflictError when the run exists with other members.
        """

    def change_coordinator(self, run: Digest, coordinator: Address) -> None:
        """Hand a run to another account, as its coordinator or the administrator; repeating it changes nothing.

        Raises LedgerConflictError for anybody else.
        """

    def commit(self, commitment: RoundCommitment) -> Anchor:
        """Append a round; committing the same values again returns the first anchor.

        Raises LedgerConflictError when the round exists with other values, its parent is not the lane's head, its
        generation not the lane's, or a round between is missing; LedgerUnreachableError when nothing answers.
        """

    def attest(self, run: Digest, erasure: Digest, lane: int, attestation: Digest) -> Anchor:
        """Anchor the audit before an erasure of a lane; repeating it returns the first anchor.

        Raises LedgerConflictError when the erasure is attested with other values.
        """

    def open_generation(self, opening: GenerationOpening) -> Anchor:
        """Move a lane's head for an attested erasure; repeating it returns the first anchor.

        Raises LedgerConflictError when the erasure is unknown or has opened another generation, the generation is not
        the lane's next, or the parent round was never committed.
        """

    def certify(self, run: Digest, erasure: Digest, certificate: Digest) -> Anchor:
        """Anchor the certificate of an attested erasure; repeating it returns the first anchor.

        Raises LedgerConflictError when the erasure is unknown or certified by another.
        """


class MemoryLedger:
    """The ledger's rules without a chain: for tests and for trying things out."""

    domain = Domain(0, Address("0x0000000000000000000000000000000000000000"))

    def __init__(self, account: Address | None = None, administrator: Address | None = None) -> None:
        """`account`: whose ledger it is; without it every run belongs to whoever asks."""
        self._account, self._administrator = account, administrator
        self._blocks = 0
        self._opened: dict[Digest, int] = {}
        self._openers: dict[Digest, Address | None] = {}
        self._rounds: dict[RoundKey, tuple[RoundCommitment, Anchor]] = {}
        self._members: dict[Digest, frozenset[Address]] = {}
        self._heads: dict[tuple[Digest, int], LaneHead] = {}
        self._erasures: dict[tuple[Digest, Digest], Erasure] = {}
        self._revoked: dict[Address, int] = {}
        self.credit_roots: dict[tuple[Digest, int], Digest] = {}
        self._steps: dict[tuple[str, Digest, Digest], tuple[object, Anchor]] = {}

    def open_run(self, run: Digest, organisations: Iterable[Address]) -> None:
        """See `Ledger.open_run`."""
        members = frozenset(organisations)
        self._opened.setdefault(run, self._blocks)
        self._openers.setdefault(run, self._account)
        if self._members.setdefault(run, members) != members:
            raise LedgerConflictError(f"run {run} is already open with other members")

    def members(self, run: Digest) -> frozenset[Address]:
        """See `Ledger.members`."""
        return self._members.get(run, frozenset())

    def coordinator(self, run: Digest) -> Address | None:
        """See `Ledger.coordinator`."""
        return self._account if run in self._members else None

    def opened_by(self, run: Digest) -> Address | None:
        """See `Ledger.opened_by`."""
        return self._openers.get(run)

    def administrator(self) -> Address | None:
        """See `Ledger.administrator`."""
        return self._administrator

    def administers(self, account: Address) -> bool:
        """See `Ledger.administers`."""
        return account == self._administrator

    def change_coordinator(self, run: Digest, coordinator: Address) -> None:
        """See `Ledger.change_coordinator`; a ledger without an account belongs to whoever asks."""
        self._check_open(run)
        self._account = coordinator if self._account else None

    def opened_at(self, run: Digest) -> int:
        """See `Ledger.opened_at`."""
        return self._opened.get(run, 0)

    def commit(self, commitment: RoundCommitment) -> Anchor:
        """See `Ledger.commit`."""
        key = commitment.key
        # A committer that died before it read the receipt asks again: that must change nothing.
        if known := self._rounds.get(key):
            if known[0] != commitment:
                raise LedgerConflictError(f"round {key.round} is already committed with other values")
            return known[1]
        self._check_follows_head(commitment)
        anchor = self._mined()
        self._rounds[key] = (commitment, anchor)
        self._heads[key.genesis, key.lane] = LaneHead(key.generation, key.round, commitment.aggregate)
        return anchor

    def read(self, key: RoundKey) -> tuple[RoundCommitment, Anchor] | None:
        """See `Ledger.read`."""
        return self._rounds.get(key)

    def head(self, run: Digest, lane: int) -> LaneHead:
        """See `Ledger.head`."""
        return self._heads.get((run, lane), LaneHead(0, 0, ZERO_DIGEST))

    def erasure(self, run: Digest, erasure: Digest) -> Erasure | None:
        """See `Ledger.erasure`."""
        return self._erasures.get((run, erasure))

    def credit_root(self, run: Digest, epoch: int) -> Digest:
        """See `Ledger.credit_root`."""
        return self.credit_roots.get((run, epoch), ZERO_DIGEST)

    def revoked(self, organisations: Iterable[Address]) -> dict[Address, int]:
        """See `Ledger.revoked`."""
        return {address: self._revoked[address] for address in organisations if address in self._revoked}

    def revoke(self, organisation: Address) -> None:
        """End an organisation's registration, as the administrator does on a chain."""
        self._revoked.setdefault(organisation, self._mined().block)

    def attest(self, run: Digest, erasure: Digest, lane: int, attestation: Digest) -> Anchor:
        """See `Ledger.attest`."""
        if known := self._repeated("attested", run, erasure, (lane, attestation)):
            return known
        self._check_open(run)
        anchor = self._step("attested", run, erasure, (lane, attestation))
        self._erasures[run, erasure] = Erasure(lane, attestation, ZERO_DIGEST, 0, anchor.block)
        return anchor

    def open_generation(self, opening: GenerationOpening) -> Anchor:
        """See `Ledger.open_generation`."""
        run, lane = opening.run, opening.lane
        if known := self._repeated("opened", run, opening.erasure, opening):
            return known
        entry = self._attested(run, opening.erasure)
        parent = self._rounds.get(RoundKey(run, lane, opening.parent_generation, opening.parent_round))
        if entry.lane != lane:
            raise LedgerConflictError(f"erasure {opening.erasure} is of lane {entry.lane}, not of lane {lane}")
        if opening.generation != (following := self.head(run, lane).generation + 1):
            raise LedgerConflictError(f"expected the lane's next generation {following}, got {opening.generation}")
        if opening.parent_round and parent is None:
            raise LedgerConflictError(f"parent round {opening.parent_round} was never committed")
        aggregate = parent[0].aggregate if parent else ZERO_DIGEST
        self._heads[run, lane] = LaneHead(opening.generation, opening.parent_round, aggregate)
        self._erasures[run, opening.erasure] = replace(entry, generation=opening.generation)
        return self._step("opened", run, opening.erasure, opening)

    def certify(self, run: Digest, erasure: Digest, certificate: Digest) -> Anchor:
        """See `Ledger.certify`."""
        if known := self._repeated("certified", run, erasure, certificate):
            return known
        self._erasures[run, erasure] = replace(self._attested(run, erasure), certificate=certificate)
        return self._step("certified", run, erasure, certificate)

    def _check_open(self, run: Digest) -> None:
        if run not in self._members:
            raise LedgerConflictError(f"run {run} is not open")

    def _check_follows_head(self, commitment: RoundCommitment) -> None:
        key = commitment.key
        self._check_open(key.genesis)
        head = self.head(key.genesis, key.lane)
        if key.generation != head.generation:
            raise LedgerConflictError(f"generation {key.generation} is not the lane's, {head.generation}")
        if key.round != head.round + 1:
            raise LedgerConflictError(f"round {key.round} does not follow round {head.round}")
        if commitment.parent != head.aggregate:
            raise LedgerConflictError(f"parent {commitment.parent} is not the head {head.aggregate}")

    def _attested(self, run: Digest, erasure: Digest) -> Erasure:
        if (entry := self._erasures.get((run, erasure))) is None:
            raise LedgerConflictError(f"erasure {erasure} was never attested")
        return entry

    def _repeated(self, step: str, run: Digest, erasure: Digest, values: object) -> Anchor | None:
        """The anchor of a step that was done; raises LedgerConflictError when it was done with other values."""
        if (known := self._steps.get((step, run, erasure))) is None:
            return None
        if known[0] != values:
            raise LedgerConflictError(f"erasure {erasure} is already {step}: {known[0]}, not {values}")
        return known[1]

    def _step(self, step: str, run: Digest, erasure: Digest, values: object) -> Anchor:
        self._steps[step, run, erasure] = (values, anchor := self._mined())
        return anchor

    def _mined(self) -> Anchor:
        self._blocks += 1
        return Anchor(self.domain.chain_id, self.domain.contract, f"0x{self._blocks:064x}", self._blocks)
