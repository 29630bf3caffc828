"""The members' private chain: salted commitments to full manifests, bids and allocations.

`PrivateRounds` takes them from a CommitQueue. Their ciphertext is in the artifact store. Keys and key wraps are never
written here, since nothing on a chain can be destroyed. The chain's head is anchored on the public ledger now and then,
so that it cannot be rebuilt unseen.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from eth_hash.auto import keccak
from hexbytes import HexBytes

from chain import ledger as ethereum
from chain.commitments import PrivateCommitment
from chain.contract import BoundContract, to_digest
from chain.deployment import bind
from chain.nodes import reaching
from core.canonical import Address, Digest, raw
from core.errors import LedgerConflictError, LedgerError
from core.keys import Domain, Key
from core.ledger import Anchor
from core.round_key import RoundKey


class Kind(IntEnum):
    """The content of a round's list of commitments; the contract's enum."""

    MANIFESTS = 0
    BIDS = 1
    ALLOCATIONS = 2


@dataclass(frozen=True)
class PrivateHead:
    """A block of a private chain."""

    chain_id: int
    number: int
    block_hash: Digest


class PrivateLedger:
    """The PrivateLedger contract; every method raises LedgerUnreachableError when the node does not answer."""

    def __init__(self, bound: BoundContract) -> None:
        self.bound = bound

    def open_run(self, run: Digest, organisations: Iterable[Address]) -> None:
        """See `core.ledger.Ledger.open_run`."""
        ethereum.open_run(self.bound, run, organisations)

    def change_coordinator(self, run: Digest, coordinator: Address) -> None:
        """See `core.ledger.Ledger.change_coordinator`."""
        ethereum.change_coordinator(self.bound, run, coordinator)

    def members(self, run: Digest) -> frozenset[Address]:
        """See `core.ledger.Ledger.members`."""
        return ethereum.members(self.bound, run)

    def record(self, key: RoundKey, kind: Kind, commitments: Sequence[Digest]) -> Anchor:
        """Record a round's commitments, ascending by the address of their organisation; repeating it changes nothing.

        Raises LedgerConflictError when others are recorded for that round and kind.
        """

        def recorded() -> Anchor | None:
            known = self.read(key, kind)
            if known is None:
                return None
            if known[0] != tuple(commitments):
                raise LedgerConflictError(
                    f"other {kind.name.lower()} are already recorded for {key}: expected {known[0]}, got {commitments}"
                )
            return known[1]

        return self.bound.execute(
            "recordRound",
            *_list(key, kind),
            [raw(item) for item in commitments],
            effect=recorded,
            purpose=f"recording the {kind.name.lower()} of round {key.round}",
        )

    def read(self, key: RoundKey, kind: Kind) -> tuple[tuple[Digest, ...], Anchor] | None:
        """A round's commitments, or None; raises LedgerError when event and storage disagree."""
        purpose = f"the {kind.name.lower()} of round {key.round}"
        digest, _, block = self.bound.call("getRecord", *_list(key, kind), purpose=purpose)
        if not block:
            return None
        filters = {"run": raw(key.genesis), "lane": key.lane, "kind": int(kind)}
        for event in self.bound.events("RoundRecorded", block, block, filters, purpose=purpose):
            values = event["args"]
            if (values["generation"], values["round"]) == (key.generation, key.round):
                if keccak(b"".join(values["commitments"])) != digest:
                    raise LedgerError(f"{purpose} do not match their digest in block {block}")
                return tuple(to_digest(item) for item in values["commitments"]), self.bound.anchor(event)
        raise LedgerError(f"{purpose} are in storage, but their event is not in block {block}")

    def head(self) -> PrivateHead:
        """The newest block."""
        with reaching(self.bound.node, "its head"):
            block = self.bound.node.eth.get_block("latest")
        return PrivateHead(self.bound.domain.chain_id, block["number"], to_digest(block["hash"]))

    def holds(self, head: PrivateHead) -> bool:
        """Whether the chain still has the block that was anchored."""
        with reaching(self.bound.node, f"block {head.number}"):
            if head.chain_id != self.bound.domain.chain_id or head.number > self.bound.node.eth.block_number:
                return False
            block = self.bound.node.eth.get_block(head.number)
        return HexBytes(block["hash"]).to_0x_hex() == head.block_hash


class PrivateRounds:
    """A round's three lists as one commitment, for a CommitQueue and for the audit; anchors the head now and then.

    The public chain must be writable with the coordinator's key. Every step is idempotent, so a commit that was
    interrupted anywhere is simply made again.
    """

    def __init__(self, private: PrivateLedger, public: BoundContract, anchor_every: int = 1) -> None:
        """`anchor_every`: rounds of a lane from one anchor of the private head to the next."""
        self._private = private
        self._public = public
        self._every = anchor_every

    @property
    def domain(self) -> Domain:
        """The private chain's id and contract."""
        return self._private.bound.domain

    def members(self, run: Digest) -> frozenset[Address]:
        """The organisations of a run on the private chain."""
        return self._private.members(run)

    def anchored(self, run: Digest) -> PrivateHead | None:
        """The newest head of the private chain that the public one holds."""
        return anchored_head(self._public, run, self._private.bound.domain.chain_id)

    def holds(self, head: PrivateHead) -> bool:
        """Whether the private chain still has a block."""
        return self._private.holds(head)

    def commit(self, commitment: PrivateCommitment) -> Anchor:
        """Record a round's lists; returns the anchor of the last. Raises as `PrivateLedger.record` does."""
        key = commitment.key
        self._private.record(key, Kind.MANIFESTS, commitment.manifests)
        self._private.record(key, Kind.BIDS, commitment.bids)
        anchor = self._private.record(key, Kind.ALLOCATIONS, commitment.allocations)
        if key.round % self._every == 0:
            anchor_head(self._public, key.genesis, self._private.head())
        return anchor

    def read(self, key: RoundKey) -> tuple[PrivateCommitment, Anchor] | None:
        """The lists of a round, or None when one of them is missing."""
        recorded = [record for kind in Kind if (record := self._private.read(key, kind)) is not None]
        if len(recorded) < len(Kind):
            return None
        manifests, bids, allocations = (digests for digests, _ in recorded)
        return PrivateCommitment(key, manifests, bids, allocations), recorded[-1][1]


def open_private_ledger(chain: str, state: Path, key: Key | None, contract: Address | None = None) -> PrivateLedger:
    """The private ledger on `chain` (``embedded``, ``anvil`` or a URL); see `chain.deployment.bind`."""
    return PrivateLedger(bind("PrivateLedger", chain, state, key, contract=contract, side="private"))


def anchor_head(public: BoundContract, run: Digest, head: PrivateHead) -> None:
    """Write a private chain's head to the public ledger; one that is anchored already, or older, changes nothing."""

    def anchored() -> bool | None:
        newest = anchored_head(public, run, head.chain_id)
        if newest and newest.number == head.number and newest != head:
            raise LedgerConflictError(
                f"private block {head.number} is anchored with another hash: "
                f"expected {newest.block_hash}, got {head.block_hash}"
            )
        return (newest is not None and newest.number >= head.number) or None

    public.execute(
        "anchorPrivateHead",
        raw(run),
        head.chain_id,
        head.number,
        raw(head.block_hash),
        effect=anchored,
        purpose=f"anchoring private block {head.number}",
    )


def anchored_head(public: BoundContract, run: Digest, chain_id: int) -> PrivateHead | None:
    """The newest head of a private chain that the public ledger holds, or None."""
    block_hash, number = public.call("getPrivateHead", raw(run), chain_id, purpose="the private chain's head")
    return PrivateHead(chain_id, number, to_digest(block_hash)) if any(block_hash) else None


def _list(key: RoundKey, kind: Kind) -> tuple[bytes, int, int, int, int]:
    """A list of commitments, as the contract takes it."""
    return raw(key.genesis), key.lane, key.generation, key.round, int(kind)
