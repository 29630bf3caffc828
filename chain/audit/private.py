"""A run's records compared with the members' private chain, and its head with the public anchor.

Whoever does not see the private chain audits without it: manifests, bids and weights are in the signed records anyway.
The private chain puts the order of rounds into the members' own hands, and its anchor shows that it was not rebuilt.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from chain.audit.files import Files, RecordFile
from chain.audit.queue import QueueAudit
from chain.audit.report import Findings, What
from chain.commitments import PrivateCommitment, private_commitment
from chain.private import PrivateHead
from core.canonical import Address, Digest
from core.errors import LedgerError, LedgerUnreachableError
from core.genesis import Genesis
from core.keys import Domain
from core.ledger import Anchor
from core.round_key import RoundKey
from core.rounds import RoundRecord, Salts


class PrivateSource(Protocol):
    """The questions to a private chain, which `chain.private.PrivateRounds` answers."""

    @property
    def domain(self) -> Domain:
        """Chain and contract."""

    def members(self, run: Digest) -> frozenset[Address]:
        """The organisations of a run."""

    def read(self, key: RoundKey) -> tuple[PrivateCommitment, Anchor] | None:
        """The lists of a round, or None when one of them is missing."""

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
    queue: QueueAudit[PrivateCommitment]
    complete: bool
    newest: RoundKey | None = None
    """The newest round that calls for an anchor and stands on the chain, and its block."""
    block: int = 0

    def check_run(self) -> None:
        """Chain, contract and members are those of the genesis."""
        if (private := self.genesis.private) is None:
            return
        where = "genesis.json, private"
        with self._asking("genesis.json") as source:
            if source:
                self.findings.expect(What.CHAIN_ID, where, private.chain_id, source.domain.chain_id)
                self.findings.expect(What.CONTRACT, where, private.contract, source.domain.contract)
                expected = {organisation.address for organisation in self.genesis.organisations}
                members = source.members(self.genesis.digest)
                self.findings.expect(What.MEMBERS, where, sorted(members), sorted(expected))

    def check_round(self, record: RoundRecord, salts: Salts | None, file: RecordFile) -> None:
        """A round's three lists follow from record and salts, on the chain and in the queue."""
        if (private := self.genesis.private) is None:
            return
        where = f"{file.where}, {file.salts}"
        anchor = self.queue.take_anchor(record.key, Domain(private.chain_id, private.contract), file.where)
        queued = self.queue.commitments.pop(record.key, None)
        with self.findings.guard(What.SALTS, where, "a salt for every update"):
            expected = private_commitment(record, salts) if salts else None
            if queued and expected:
                self._same(queued[1], expected, f"{file.where}, {queued[0]}")
            with self._asking(file.where) as source:
                if source and (on_chain := source.read(record.key)):
                    commitment, receipt = on_chain
                    self.findings.checked["private commitments"] += 1
                    if expected:
                        self._same(commitment, expected, where)
                    self.queue.check_receipt(anchor, receipt)
                    if record.round % private.anchor_every == 0 and receipt.block > self.block:
                        self.newest, self.block = record.key, receipt.block
                elif source and (anchor or self.complete):
                    self.findings.fail(What.NOT_ON_LEDGER, file.where, "nothing", "the round's private commitments")
                elif source:
                    self.findings.checked["pending"] += 1

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

    def _same(self, got: PrivateCommitment, want: PrivateCommitment, where: str) -> None:
        self.findings.expect(What.MANIFESTS, where, got.manifests, want.manifests)
        self.findings.expect(What.BIDS, where, got.bids, want.bids)
        self.findings.expect(What.ALLOCATIONS, where, got.allocations, want.allocations)

    @contextmanager
    def _asking(self, where: str) -> Iterator[PrivateSource | None]:
        """The chain, while it answers; a refusal is a failure."""
        try:
            yield self.source
        except LedgerUnreachableError as error:
            self.source = None
            self.findings.fail(What.CHAIN_UNREACHABLE, f"{where}, private", error, "an answer")
        except LedgerError as error:
            self.findings.fail(What.LEDGER, f"{where}, private", error, "storage and events that agree")
