"""Credits on the public ledger: a Merkle root of every organisation's cumulative credit, and claims by proof.

The trees are in core/credit.py. Claims are a record, no payment.
"""

from chain.contract import BoundContract, to_digest
from core.canonical import Address, Digest, raw
from core.credit import CreditTree
from core.errors import LedgerConflictError


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

    def root(self, run: Digest, epoch: int) -> Digest:
        """The root of an epoch; zero where it was not posted."""
        return to_digest(self._bound.call("getCreditRoot", raw(run), epoch, purpose=f"credit epoch {epoch}"))

    def epoch_of(self, tree: CreditTree) -> int:
        """The newest epoch with the tree's root; 0 when there is none: every epoch that was posted can be claimed."""
        newest, _ = self.newest(tree.run)
        for epoch in range(newest, 0, -1):
            if self.root(tree.run, epoch) == tree.root:
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
