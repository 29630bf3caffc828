"""A run's files compared with the ledger.

The ledger is the truth about commitments; the run's commit queue is evidence only, and may be missing. A round that is
not on the ledger is pending while the run goes on and the queue names no anchor for it; it is a failure when the run is
finished or the audit strict. A ledger that stops answering is one failure, and is asked no more.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from chain.audit.files import Files, RecordFile
from chain.audit.queue import QueueAudit
from chain.audit.report import Findings, What
from core.canonical import ZERO_DIGEST, Address, Digest
from core.erasures import Attestation
from core.errors import LedgerError, LedgerUnreachableError
from core.genesis import Genesis
from core.ledger import GenerationOpening, Ledger, RoundCommitment
from core.membership import MembershipRecord
from core.round_key import RoundKey
from core.rounds import RoundRecord, Salts, commit_to


@dataclass
class LedgerAudit:
    """Compares a run with a ledger; without one (offline) only its files with each other."""

    ledger: Ledger | None
    genesis: Genesis
    files: Files
    findings: Findings
    queue: QueueAudit[RoundCommitment]
    """The run's commit queue; rounds without a record stay in it."""
    complete: bool
    """Whether every round must be on the ledger by now."""
    strict: bool = False
    """Whether a certificate must be, too: a crash may leave one that the next erasure anchors."""

    def __post_init__(self) -> None:
        self.digest = self.genesis.digest
        self.revoked: dict[Address, int] = {}
        self._blocks: dict[Digest, int] = {}
        """The block of each commitment to a lane's head."""

    def check_run(self) -> None:
        """Chain, contract and members are those of the genesis."""
        where, chain = "genesis.json", self.genesis.chain
        with self._asking(where) as ledger:
            if ledger:
                self.findings.expect(What.CHAIN_ID, where, chain.chain_id, ledger.domain.chain_id)
                self.findings.expect(What.CONTRACT, where, chain.contract, ledger.domain.contract)
                # A digest that is seen before it is mined can be opened by another coordinator.
                if account := ledger.coordinator(self.digest):
                    expected_account = self.genesis.signing(self.genesis.coordinator)
                    self.findings.expect(What.COORDINATOR, where, expected_account, account)
                members = ledger.members(self.digest)
                expected = {organisation.address for organisation in self.genesis.organisations}
                self.findings.checked["members"] += len(members)
                if odd := sorted(members ^ expected):
                    got = f"{len(members)}, {'without' if odd[0] in expected else 'with'} {odd[0]}"
                    self.findings.fail(What.MEMBERS, where, got, f"the {len(expected)} organisations of the genesis")
                # The first round grows from the opening of the run, as every other from the commitment of its parent.
                self._blocks[ZERO_DIGEST] = ledger.opened_at(self.digest)
                self.revoked = ledger.revoked(self.genesis.signers)

    def check_round(
        self, record: RoundRecord, salts: Salts | None, file: RecordFile, parent: Digest | None
    ) -> Digest | None:
        """Commitment and anchor of a round.

        `parent` is the commitment that it must name as its parent. Returns the one that the next round must name.
        Either is None when salts that cannot be read hide it, as does `salts` None.
        """
        key, where = RoundKey(self.digest, record.lane, record.generation, record.round), f"{file.where}, {file.salts}"
        expected = committed = None
        with self.findings.guard(What.SALTS, where, "a salt for the aggregate and for every update"):
            expected = commit_to(record, salts, parent or ZERO_DIGEST) if salts else None
        anchor = self.queue.take_anchor(key, self.genesis.chain, file.where)
        with self._asking(file.where) as ledger:
            if ledger and (on_chain := ledger.read(key)):
                committed, receipt = on_chain
                self.findings.checked["commitments"] += 1
                self._blocks[committed.aggregate] = receipt.block
                self._check_revoked(record, self._blocks.get(committed.parent), file)
                if expected:
                    self._same(committed, expected, parent, where)
                self.queue.check_receipt(anchor, receipt)
            elif ledger and anchor:
                self.findings.fail(What.NOT_ON_LEDGER, anchor[0], anchor[1].transaction, "a transaction on the ledger")
            elif ledger:
                self._pending(file.where, "the round's commitment")
        queued = self.queue.commitments.pop(key, None)
        if queued and (reference := committed or expected):
            self._same(queued[1], reference, parent, f"{file.where}, {queued[0]}")
        return expected.aggregate if expected else None

    def _check_revoked(self, record: RoundRecord, parent: int | None, file: RecordFile) -> None:
        """Nobody is admitted whose registration had ended when the parent was committed, in block `parent`."""
        for admitted in record.admitted:
            ended = self.revoked.get(self.genesis.signing(admitted.organisation, record.place))
            if ended is not None and parent is not None and ended < parent:
                where = f"{file.where}, {admitted.organisation}"
                want = f"nobody who was revoked before block {parent}, where the parent stands"
                self.findings.fail(What.REVOKED, where, f"revoked in block {ended}", want)

    def check_end(self, lane: int, generation: int, number: int) -> None:
        """The ledger has no round behind the last one that is recorded, unless it was recorded in the meantime."""
        where = f"round {number}, lane {lane}"
        with self._asking(where) as ledger:
            on_chain = ledger.read(RoundKey(self.digest, lane, generation, number)) if ledger else None
            if on_chain and not self.files.recorded_since(lane, generation, number):
                got = f"a round of {on_chain[0].count} updates"
                self.findings.fail(What.NOT_RECORDED, where, got, "a record of it")

    def check_generation(self, opening: GenerationOpening, where: str) -> None:
        """The ledger has opened a generation for the erasure that its record names."""
        with self._asking(where) as ledger:
            if ledger is None:
                return
            erasure = ledger.erasure(self.digest, opening.erasure)
            if erasure and erasure.generation:
                want = opening.lane, opening.generation
                self.findings.expect(What.GENERATION, where, (erasure.lane, erasure.generation), want)
            else:
                self._pending(where, f"an opening for erasure {opening.erasure}")

    def check_change(self, record: MembershipRecord, where: str) -> None:
        """The ledger knows a change of members by its salted digest."""
        with self._asking(where) as ledger:
            if ledger is None:
                return
            for rotation in (signed.value for signed in record.rotations):
                if rotation.by != rotation.old and not ledger.administers(rotation.by):
                    self.findings.fail(What.MEMBERSHIP, where, rotation.by, "an administrator of the contract")
            if known := ledger.erasure(self.digest, record.change):
                self.findings.expect(What.MEMBERSHIP, where, known.attestation, record.committed)
            else:
                self._pending(where, f"change {record.change}")

    def check_erasure(self, attestation: Attestation, certificate: Digest | None, where: str) -> None:
        """The ledger knows an erasure by its attestation, and by its certificate where there is one."""
        with self._asking(where) as ledger:
            if ledger is None:
                return
            erasure = ledger.erasure(self.digest, attestation.erasure)
            if erasure is None and certificate:
                self.findings.fail(What.NOT_ON_LEDGER, where, "nothing", f"erasure {attestation.erasure}")
            elif erasure is None:
                self.findings.checked["pending"] += 1
            else:
                self.findings.expect(What.ATTESTATION, where, erasure.attestation, attestation.hide(attestation.digest))
                if certificate and erasure.certificate == ZERO_DIGEST and not self.strict:
                    self.findings.checked["pending"] += 1
                elif certificate or erasure.certificate != ZERO_DIGEST:
                    self.findings.expect(What.CERTIFICATE, where, erasure.certificate, certificate)

    def credit_root(self, epoch: int) -> Digest | None:
        """The root of an epoch of credit; None where the ledger has none, or does not answer."""
        with self._asking(f"credit epoch {epoch}") as ledger:
            if ledger and (root := ledger.credit_root(self.digest, epoch)) != ZERO_DIGEST:
                return root
        return None

    def check_head(self, lane: int, generation: int) -> None:
        """The ledger has opened no generation that the records lack."""
        where = f"lane {lane}"
        with self._asking(where) as ledger:
            if ledger and (newest := ledger.head(self.digest, lane).generation) > generation:
                self.findings.fail(What.NOT_RECORDED, where, f"generation {newest}", f"generation {generation}")

    def _pending(self, where: str, want: str) -> None:
        """Something is not on the ledger, and may come while the run goes on."""
        if self.complete:
            self.findings.fail(What.NOT_ON_LEDGER, where, "nothing", want)
        else:
            self.findings.checked["pending"] += 1

    def _same(self, got: RoundCommitment, want: RoundCommitment, parent: Digest | None, where: str) -> None:
        """A commitment is the one that follows from record and salts."""
        expect = self.findings.expect
        expect(What.COUNT, where, got.count, want.count)
        expect(What.UPDATES_ROOT, where, got.updates_root, want.updates_root)
        expect(What.COMMITMENT, where, got.aggregate, want.aggregate)
        if parent is not None:
            expect(What.COMMITTED_PARENT, where, got.parent, parent)

    @contextmanager
    def _asking(self, where: str) -> Iterator[Ledger | None]:
        """The ledger, while it answers; a refusal is a failure."""
        try:
            yield self.ledger
        except LedgerUnreachableError as error:
            self.ledger = None
            self.findings.fail(What.CHAIN_UNREACHABLE, where, error, "an answer")
        except LedgerError as error:
            self.findings.fail(What.LEDGER, where, error, "storage and events that agree")
