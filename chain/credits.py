"""Credits on the public ledger: a Merkle root of every organisation's cumulative credit, and claims by proof.

A leaf is the double keccak256 of run ‖ address (padded to 32 bytes) ‖ cumulative (uint256, units of 1e-18), as the
contract's `abi.encode` lays them out; leaves stand in the order of their addresses. Claims are a record, no payment.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from chain.contract import BoundContract, to_digest
from core import merkle
from core.canonical import Address, Digest, raw
from core.errors import LedgerConflictError

UNIT: Final = 10**18
"""A credit of 1, as the ledger counts it."""


@dataclass(frozen=True)
class CreditTree:
    """The cumulative credit of a run's organisations, in units of 1e-18."""

    run: Digest
    cumulative: Mapping[Address, int]

    @classmethod
    def of(cls, run: Digest, amounts: Mapping[Address, float]) -> Self:
        """The tree of amounts in whole credits."""
        return cls(run, {organisation: round(amount * UNIT) for organisation, amount in amounts.items()})

    @property
    def root(self) -> Digest:
        """The root that is posted."""
        return to_digest(merkle.root(self._leaves()))

    def proof(self, organisation: Address) -> tuple[bytes, ...]:
        """The siblings that prove an organisation's credit; raises KeyError when it is not in the tree."""
        if organisation not in self.cumulative:
            raise KeyError(organisation)
        return merkle.proof(self._leaves(), self._order().index(organisation))

    def _order(self) -> list[Address]:
        return sorted(self.cumulative, key=lambda address: int(address, 16))

    def _leaves(self) -> list[bytes]:
        return [credit_leaf(self.run, address, self.cumulative[address]) for address in self._order()]


def credit_leaf(run: Digest, organisation: Address, cumulative: int) -> bytes:
    """The leaf of one organisation's credit, 32 bytes."""
    address = bytes.fromhex(organisation[2:]).rjust(32, b"\0")
    return merkle.leaf(raw(run) + address + cumulative.to_bytes(32, "big"))


class Credits:
    """The credits of all runs on the public ledger.

    Every method raises LedgerUnreachableError when the node does not answer.
    """

    def __init__(self, bound: BoundContract) -> None:
        """`bound`: the PublicLedger contract, as `EthereumLedger.bound` has it."""
        self._bound = bound

    def newest(self, run: Digest) -> tuple[int, Digest]:
        """The newest epoch, 0 before the first, and its root."""
        root, epoch = self._bound.call("getCredits", raw(run), purpose="credits")
        return epoch, to_digest(root)

    def epoch_of(self, tree: CreditTree) -> int:
        """The newest epoch with the tree's root; 0 when there is none: every epoch that was posted can be claimed."""
        newest, _ = self.newest(tree.run)
        for epoch in range(newest, 0, -1):
            root = self._bound.call("getCreditRoot", raw(tree.run), epoch, purpose=f"credit epoch {epoch}")
            if to_digest(root) == tree.root:
                return epoch
        return 0

    def post(self, epoch: int, tree: CreditTree) -> None:
        """Post the tree's root as `epoch`, numbered from 1 without gaps; repeating it changes nothing.

        Raises LedgerConflictError when the epoch has another root or is not the next.
        """

        def posted() -> bool | None:
            newest, root = self.newest(tree.run)
            if newest == epoch and root != tree.root:
                raise LedgerConflictError(f"credit epoch {epoch}: expected the ledger's root {root}, got {tree.root}")
            return newest == epoch or None

        self._bound.execute(
            "postCredits", raw(tree.run), epoch, raw(tree.root), effect=posted, purpose=f"posting credit epoch {epoch}"
        )

    def claimed(self, run: Digest, organisation: Address) -> int:
        """The cumulative credit that an organisation has claimed."""
        return int(self._bound.call("getClaimed", raw(run), organisation, purpose="claimed credit"))

    def claim(self, tree: CreditTree, organisation: Address) -> None:
        """Claim an organisation's credit of any epoch; repeating it changes nothing.

        Raises LedgerConflictError when the ledger has the tree's root in none.
        """
        cumulative, epoch = tree.cumulative[organisation], self.epoch_of(tree)
        if not epoch:
            raise LedgerConflictError(f"credit: expected the root {tree.root} in one of the ledger's epochs, got none")
        self._bound.execute(
            "claimCredit",
            raw(tree.run),
            epoch,
            organisation,
            cumulative,
            list(tree.proof(organisation)),
            # More may be claimed already: cumulative credit only grows, and an old claim is then part of a newer one.
            effect=lambda: self.claimed(tree.run, organisation) >= cumulative or None,
            purpose=f"claiming the credit of {organisation}",
        )
