"""What a federation needs from a chain, and a double that keeps it in memory.

A ledger holds one commitment per (run, lane, generation, round): committed once, never rewritten, its parent the
lane's head. Nothing here is personal: digests are salted before they arrive.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from core.canonical import ZERO_DIGEST, Address, Digest
from core.errors import LedgerConflictError


@dataclass(frozen=True, order=True)
class RoundKey:
    """Where a round stands: run (genesis digest), lane, generation (0 until the first erasure), round (from 1)."""

    run: Digest
    lane: int
    generation: int
    round: int


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


class LedgerView(Protocol):
    """What anybody may ask of a ledger."""

    @property
    def chain_id(self) -> int:
        """The chain that EIP-712 signatures are bound to."""

    @property
    def contract(self) -> Address:
        """The verifying contract that EIP-712 signatures are bound to."""

    def members(self, run: Digest) -> frozenset[Address]:
        """The organisations of a run; empty when the run is unknown."""

    def read(self, key: RoundKey) -> tuple[RoundCommitment, Anchor] | None:
        """What is committed at `key`, or None."""


class Ledger(LedgerView, Protocol):
    """A place that remembers commitments for everyone and forgets none."""

    def open_run(self, run: Digest, organisations: Iterable[Address]) -> None:
        """Register a run and its members; repeating it with the same members changes nothing.

        Raises LedgerConflictError when the run exists with other members.
        """

    def commit(self, commitment: RoundCommitment) -> Anchor:
        """Append a round; committing the same values again returns the first anchor.

        Raises LedgerConflictError when the round exists with other values, its parent is not the lane's head, or
        a round between is missing; LedgerUnreachableError when nothing answers.
        """


class MemoryLedger:
    """The ledger's rules without a chain: for tests and for trying things out."""

    chain_id = 0
    contract = Address("0x0000000000000000000000000000000000000000")

    def __init__(self) -> None:
        self._rounds: dict[RoundKey, tuple[RoundCommitment, Anchor]] = {}
        self._members: dict[Digest, frozenset[Address]] = {}
        self._heads: dict[tuple[Digest, int, int], RoundCommitment] = {}

    def open_run(self, run: Digest, organisations: Iterable[Address]) -> None:
        """See `Ledger.open_run`."""
        members = frozenset(organisations)
        if self._members.setdefault(run, members) != members:
            raise LedgerConflictError(f"run {run} is already open with other members")

    def members(self, run: Digest) -> frozenset[Address]:
        """See `Ledger.members`."""
        return self._members.get(run, frozenset())

    def commit(self, commitment: RoundCommitment) -> Anchor:
        """See `Ledger.commit`."""
        key = commitment.key
        if known := self._rounds.get(key):
            if known[0] != commitment:
                raise LedgerConflictError(f"round {key.round} is already committed with other values")
            return known[1]
        self._check_follows_head(commitment)
        anchor = Anchor(self.chain_id, self.contract, f"0x{len(self._rounds) + 1:064x}", len(self._rounds) + 1)
        self._rounds[key] = (commitment, anchor)
        self._heads[key.run, key.lane, key.generation] = commitment
        return anchor

    def read(self, key: RoundKey) -> tuple[RoundCommitment, Anchor] | None:
        """See `Ledger.read`."""
        return self._rounds.get(key)

    def _check_follows_head(self, commitment: RoundCommitment) -> None:
        key = commitment.key
        if key.run not in self._members:
            raise LedgerConflictError(f"run {key.run} is not open")
        head = self._heads.get((key.run, key.lane, key.generation))
        height, parent = (head.key.round, head.aggregate) if head else (0, ZERO_DIGEST)
        if key.round != height + 1:
            raise LedgerConflictError(f"round {key.round} does not follow round {height}")
        if commitment.parent != parent:
            raise LedgerConflictError(f"parent {commitment.parent} is not the head {parent}")
