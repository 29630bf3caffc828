"""What the members' private chain says of a run, compared with its records; and its head with the public anchor.

Whoever does not see the private chain audits without it: manifests, bids and weights are in the signed records anyway.
What the private chain adds is that the members hold the order of rounds in their own hands, and the anchor that it was
not built anew.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from chain.audit.files import Files, RecordFile
from chain.audit.ledger import Queue
from chain.audit.report import Findings, What
from chain.commitments import PrivateCommitment, private_commitment
from chain.private import PrivateHead
from core.canonical import Address, Digest
from core.errors import LedgerError, LedgerUnreachableError
from core.genesis import Genesis, PrivateChain
from core.ledger import Anchor
from core.round_key import RoundKey
from core.rounds import RoundRecord, Salts


class PrivateSource(Protocol):
    """What is asked of a private chain: `chain.private.PrivateRounds` answers."""

    @property
    def chain(self) -> tuple[int, Address]:
        """Chain id and contract."""

    def members(self, run: Digest) -> frozenset[Address]:
        """The organisations of a run."""

    def read(self, key: RoundKey) -> tuple[PrivateCommitment, Anchor] | None:
        """What is recorded of a round, or None when not everything is."""

    def anchored(self, run: Digest) -> PrivateHead | None:
        """The newest head of this chain on the public one."""

    def holds(self, head: PrivateHead) -> bool:
        """Whether the chain still has a block."""


@dataclass
class PrivateAudit:
    """Compares a run with its private chain; without a source only its files with each other."""

    source: PrivateSource | None
    genesis: Genesis
    findings: Findings
    queue: Queue[PrivateCommitment]
    complete: bool
    newest: RoundKey | None = None
    """The newest round that calls for an anchor and stands on the chain, and its block."""
    block: int = 0

    def check_run(self) -> None:
        """Chain, contract and members are those of the genesis."""
        if (private := self.genesis.private) is None:
            return
        with self._asking("genesis.json") as source:
            if source:
                chain_id, contract = source.chain
                self.findings.expect(What.CHAIN_ID, "genesis.json, private", private.chain_id, chain_id)
                self.findings.expect(What.CONTRACT, "genesis.json, private", private.contract, contract)
                wanted = {organisation.address for organisation in self.genesis.organisations}
                found = source.members(self.genesis.digest)
                self.findings.expect(What.MEMBERS, "genesis.json, private", sorted(found), sorted(wanted))

    def check_round(self, record: RoundRecord, salts: Salts | None, file: RecordFile) -> None:
        """A round's three lists are those that record and salts lead to, on the chain and in the queue."""
        if (private := self.genesis.private) is None:
            return
        anchor = self.queue.anchors.pop(record.key, None)
        queued = self.queue.commitments.pop(record.key, None)
        if anchor:
            self._check_anchor(anchor[1], private, f"{file.where}, {anchor[0]}")
        with self.findings.guard(What.SALTS, f"{file.where}, {file.salts}", "a salt for every update"):
            wanted = private_commitment(record, salts) if salts else None
            if queued and wanted:
                self._same(queued[1], wanted, f"{file.where}, {queued[0]}")
            with self._asking(file.where) as source:
                if source:
                    self._on_chain(source.read(record.key), wanted, anchor, private, file)

    def check_end(self, files: Files) -> None:
        """The chain's newest head on the public chain is a block of it, and no older than the rounds that call for it.

        An anchor that comes later than its round is pending while the run goes on.
        """
        self.queue.check_end(files, complete=self.complete)
        if self.newest is None:
            return
        where = f"round {self.newest.round}, lane {self.newest.lane}"
        with self._asking(where) as source:
            if source is None:
                return
            head = source.anchored(self.genesis.digest)
            if head is None or head.number < self.block:
                if self.complete:
                    got = "none" if head is None else f"block {head.number}"
                    self.findings.fail(What.PRIVATE_HEAD, where, got, f"block {self.block} or later")
                else:
                    self.findings.checked["pending"] += 1
            elif not source.holds(head):
                want = "a block of the private chain"
                self.findings.fail(What.PRIVATE_HEAD, where, f"block {head.number}, {head.block_hash}", want)
            else:
                self.findings.checked["private heads"] += 1

    def _on_chain(
        self,
        found: tuple[PrivateCommitment, Anchor] | None,
        wanted: PrivateCommitment | None,
        anchor: tuple[str, Anchor] | None,
        private: PrivateChain,
        file: RecordFile,
    ) -> None:
        if found is None:
            if anchor or self.complete:
                self.findings.fail(What.NOT_ON_LEDGER, file.where, "nothing", "the round's private commitments")
            else:
                self.findings.checked["pending"] += 1
            return
        commitment, receipt = found
        self.findings.checked["private commitments"] += 1
        if wanted:
            self._same(commitment, wanted, f"{file.where}, {file.salts}")
        if anchor and (anchor[1].transaction, anchor[1].block) != (receipt.transaction, receipt.block):
            got, want = (f"{a.transaction} in block {a.block}" for a in (anchor[1], receipt))
            self.findings.fail(What.ANCHOR, f"{file.where}, {anchor[0]}", got, want)
        if commitment.key.round % private.anchor_every == 0 and receipt.block > self.block:
            self.newest, self.block = commitment.key, receipt.block

    def _check_anchor(self, anchor: Anchor, private: PrivateChain, where: str) -> None:
        self.findings.expect(What.CHAIN_ID, where, anchor.chain_id, private.chain_id)
        self.findings.expect(What.CONTRACT, where, anchor.contract, private.contract)

    def _same(self, got: PrivateCommitment, wanted: PrivateCommitment, where: str) -> None:
        self.findings.expect(What.MANIFESTS, where, got.manifests, wanted.manifests)
        self.findings.expect(What.BIDS, where, got.bids, wanted.bids)
        self.findings.expect(What.ALLOCATIONS, where, got.allocations, wanted.allocations)

    @contextmanager
    def _asking(self, where: str) -> Iterator[PrivateSource | None]:
        """The chain, while it answers; what it refuses to say is a failure."""
        try:
            yield self.source
        except LedgerUnreachableError as error:
            self.source = None
            self.findings.fail(What.CHAIN_UNREACHABLE, f"{where}, private", error, "an answer")
        except LedgerError as error:
            self.findings.fail(What.LEDGER, f"{where}, private", error, "storage and events that agree")
