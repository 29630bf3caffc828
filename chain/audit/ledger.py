"""What the ledger says of a run, compared with its files.

The ledger is the truth about what was committed; the run's commit queue only says what was sent and where it came to
stand, and may be missing. A round that is not on the ledger is pending while the run goes on and the queue names no
anchor for it; it is a failure when the run is finished or the audit strict. A ledger that stops answering is one
failure, and is asked no more.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Self

from chain.audit.files import Files, RecordFile
from chain.audit.report import Findings, What
from chain.commitments import Commitment, parse
from core.canonical import ZERO_DIGEST, Address, Digest, from_json
from core.erasures import Attestation
from core.errors import FormatError, IntegrityError, LedgerError, LedgerUnreachableError
from core.genesis import Genesis
from core.ledger import Anchor, GenerationOpening, Ledger, RoundCommitment
from core.round_key import RoundKey
from core.rounds import RoundRecord, Salts, commit_to


@dataclass
class Queue(Generic[Commitment]):
    """The lines of a commit queue by round, each with its place for findings; a later anchor replaces an earlier."""

    name: str
    findings: Findings
    commitments: dict[RoundKey, tuple[str, Commitment]] = field(default_factory=dict)
    anchors: dict[RoundKey, tuple[str, Anchor]] = field(default_factory=dict)
    torn: bool = False
    """Whether the last line is incomplete, as a crash leaves it; opening the queue cuts it off."""

    @classmethod
    def read(cls, path: Path, kind: type[Commitment], findings: Findings) -> Self:
        """The queue in a file, empty when there is none; damaged lines are failures."""
        queue = cls(path.name, findings)
        with findings.guard(What.QUEUE, path.name, "a readable file"):
            *lines, tail = (path.read_bytes() if path.exists() else b"").split(b"\n")
            queue.torn = bool(tail)
            for number, line in enumerate(lines, start=1):
                where = f"{path.name}, line {number}"
                with findings.guard(What.QUEUE, where, "a commitment or an anchor"):
                    queue._enter(_sent(line, kind), where)
        return queue

    def check_end(self, files: Files, *, complete: bool) -> None:
        """Nothing was sent that no record speaks of, and a finished run left no line half-written."""
        if self.name in files:
            with self.findings.guard(What.QUEUE, self.name, "a file of the run"):
                files.take(self.name)
        for left in (self.commitments, self.anchors):
            for key, (where, _) in left.items():
                place = f"round {key.round}, lane {key.lane}"
                self.findings.fail(What.NOT_RECORDED, where, place, "a round that is recorded")
        if self.torn and complete:
            self.findings.fail(What.QUEUE, self.name, "a last line without an end", "whole lines")
        elif self.torn:
            self.findings.checked["torn lines"] += 1

    def _enter(self, sent: Commitment | tuple[RoundKey, Anchor], where: str) -> None:
        if isinstance(sent, tuple):
            self.anchors[sent[0]] = where, sent[1]
        elif sent.key in self.commitments:
            raise IntegrityError(f"round {sent.key.round} of lane {sent.key.lane} again")
        else:
            self.commitments[sent.key] = where, sent


@dataclass
class LedgerAudit:
    """Compares a run with a ledger; without one (offline) only its files with each other."""

    ledger: Ledger | None
    genesis: Genesis
    files: Files
    findings: Findings
    queue: Queue[RoundCommitment]
    """The run's commit queue; what no record asks for stays in it."""
    complete: bool
    """Whether every round must be on the ledger by now."""
    strict: bool = False
    """Whether a certificate must be, too: a crash may leave one that the next erasure anchors."""

    def __post_init__(self) -> None:
        self.digest = self.genesis.digest
        self.revoked: dict[Address, int] = {}
        self._blocks: dict[Digest, int] = {}
        """Where each commitment of a lane's head stands."""

    def check_run(self) -> None:
        """Chain, contract and members are those of the genesis."""
        where, chain = "genesis.json", self.genesis.chain
        with self._asking(where) as ledger:
            if ledger:
                self.findings.expect(What.CHAIN_ID, where, chain.chain_id, ledger.chain_id)
                self.findings.expect(What.CONTRACT, where, chain.contract, ledger.contract)
                self._members(ledger.members(self.digest), where)
                self.revoked = ledger.revoked(member.address for member in self.genesis.organisations)

    def check_round(
        self, record: RoundRecord, salts: Salts | None, file: RecordFile, parent: Digest | None
    ) -> Digest | None:
        """Commitment and anchor of a round.

        `parent` is the commitment that it must name as its parent. Returns the one that the next round must name.
        Either is None when salts that cannot be read hide it, as does `salts` None.
        """
        key = RoundKey(self.digest, record.lane, record.generation, record.round)
        wanted = self._wanted(record, salts, file, parent)
        anchor = self._anchor(key, file)
        committed = None
        with self._asking(file.where) as ledger:
            if ledger and (found := ledger.read(key)):
                committed = found[0]
                self._blocks[committed.aggregate] = found[1].block
                self._check_revoked(record, self._blocks.get(committed.parent), file)
                self._committed(committed, found[1], wanted, parent, anchor, file)
            elif ledger:
                self._missing(anchor, file)
        queued = self.queue.commitments.pop(key, None)
        if queued and (reference := committed or wanted):
            self._same(queued[1], reference, parent, f"{file.where}, {queued[0]}")
        return wanted.aggregate if wanted else None

    def _check_revoked(self, record: RoundRecord, parent: int | None, file: RecordFile) -> None:
        """Nobody is admitted whose registration had ended when the parent was committed, in block `parent`."""
        for admitted in record.admitted:
            ended = self.revoked.get(admitted.organisation)
            if ended is not None and parent is not None and ended < parent:
                where = f"{file.where}, {admitted.organisation}"
                want = f"nobody who was revoked before block {parent}, where the parent stands"
                self.findings.fail(What.REVOKED, where, f"revoked in block {ended}", want)

    def check_end(self, lane: int, generation: int, number: int) -> None:
        """The ledger has no round behind the last one that is recorded, unless it was recorded in the meantime."""
        where = f"round {number}, lane {lane}"
        with self._asking(where) as ledger:
            found = ledger.read(RoundKey(self.digest, lane, generation, number)) if ledger else None
            if found and not self.files.recorded_since(lane, generation, number):
                self.findings.fail(What.NOT_RECORDED, where, f"a round of {found[0].count} updates", "a record of it")

    def check_generation(self, opening: GenerationOpening, where: str) -> None:
        """The ledger has opened a generation for the erasure that its record names."""
        with self._asking(where) as ledger:
            if ledger is None:
                return
            found = ledger.erasure(self.digest, opening.erasure)
            if found and found.generation:
                place = opening.lane, opening.generation
                self.findings.expect(What.GENERATION, where, (found.lane, found.generation), place)
            elif self.complete:
                self.findings.fail(What.NOT_ON_LEDGER, where, "nothing", f"an opening for erasure {opening.erasure}")
            else:
                self.findings.checked["pending"] += 1

    def check_erasure(self, attestation: Attestation, certificate: Digest | None, where: str) -> None:
        """The ledger knows an erasure by what was attested, and by its certificate where there is one."""
        with self._asking(where) as ledger:
            if ledger is None:
                return
            if (found := ledger.erasure(self.digest, attestation.erasure)) is None:
                if certificate:
                    self.findings.fail(What.NOT_ON_LEDGER, where, "nothing", f"erasure {attestation.erasure}")
                else:
                    self.findings.checked["pending"] += 1
                return
            self.findings.expect(What.ATTESTATION, where, found.attestation, attestation.hide(attestation.digest))
            if certificate or found.certificate != ZERO_DIGEST:
                self._certified(found.certificate, certificate, where)

    def _certified(self, found: Digest, wanted: Digest | None, where: str) -> None:
        if found == ZERO_DIGEST and not self.strict:
            self.findings.checked["pending"] += 1
        else:
            self.findings.expect(What.CERTIFICATE, where, found, wanted)

    def check_head(self, lane: int, generation: int) -> None:
        """The ledger has opened no generation that the records lack."""
        where = f"lane {lane}"
        with self._asking(where) as ledger:
            if ledger and (found := ledger.head(self.digest, lane).generation) > generation:
                self.findings.fail(What.NOT_RECORDED, where, f"generation {found}", f"generation {generation}")

    def _members(self, found: frozenset[Address], where: str) -> None:
        wanted = {organisation.address for organisation in self.genesis.organisations}
        self.findings.checked["members"] += len(found)
        if odd := sorted(found ^ wanted):
            got = f"{len(found)}, {'without' if odd[0] in wanted else 'with'} {odd[0]}"
            self.findings.fail(What.MEMBERS, where, got, f"the {len(wanted)} organisations of the genesis")

    def _wanted(
        self, record: RoundRecord, salts: Salts | None, file: RecordFile, parent: Digest | None
    ) -> RoundCommitment | None:
        """The commitment that follows from a record and its salts."""
        where = f"{file.where}, {file.salts}"
        with self.findings.guard(What.SALTS, where, "a salt for the aggregate and for every update"):
            return commit_to(record, salts, parent or ZERO_DIGEST) if salts else None
        return None

    def _anchor(self, key: RoundKey, file: RecordFile) -> tuple[str, Anchor] | None:
        """The round's anchor in the queue, which names the genesis's chain and contract."""
        if (found := self.queue.anchors.pop(key, None)) is None:
            return None
        where, anchor = f"{file.where}, {found[0]}", found[1]
        self.findings.expect(What.CHAIN_ID, where, anchor.chain_id, self.genesis.chain.chain_id)
        self.findings.expect(What.CONTRACT, where, anchor.contract, self.genesis.chain.contract)
        return where, anchor

    def _committed(
        self,
        committed: RoundCommitment,
        receipt: Anchor,
        wanted: RoundCommitment | None,
        parent: Digest | None,
        anchor: tuple[str, Anchor] | None,
        file: RecordFile,
    ) -> None:
        self.findings.checked["commitments"] += 1
        if wanted:
            self._same(committed, wanted, parent, f"{file.where}, {file.salts}")
        if anchor and (anchor[1].transaction, anchor[1].block) != (receipt.transaction, receipt.block):
            got, want = (f"{a.transaction} in block {a.block}" for a in (anchor[1], receipt))
            self.findings.fail(What.ANCHOR, anchor[0], got, want)

    def _same(self, got: RoundCommitment, wanted: RoundCommitment, parent: Digest | None, where: str) -> None:
        """What was committed or sent is what record and salts lead to."""
        expect = self.findings.expect
        expect(What.COUNT, where, got.count, wanted.count)
        expect(What.UPDATES_ROOT, where, got.updates_root, wanted.updates_root)
        expect(What.COMMITMENT, where, got.aggregate, wanted.aggregate)
        if parent is not None:
            expect(What.COMMITTED_PARENT, where, got.parent, parent)

    def _missing(self, anchor: tuple[str, Anchor] | None, file: RecordFile) -> None:
        if anchor:
            self.findings.fail(What.NOT_ON_LEDGER, anchor[0], anchor[1].transaction, "a transaction on the ledger")
        elif self.complete:
            self.findings.fail(What.NOT_ON_LEDGER, file.where, "nothing", "the round's commitment")
        else:
            self.findings.checked["pending"] += 1

    @contextmanager
    def _asking(self, where: str) -> Iterator[Ledger | None]:
        """The ledger, while it answers; what it refuses to say is a failure."""
        try:
            yield self.ledger
        except LedgerUnreachableError as error:
            self.ledger = None
            self.findings.fail(What.CHAIN_UNREACHABLE, where, error, "an answer")
        except LedgerError as error:
            self.findings.fail(What.LEDGER, where, error, "storage and events that agree")


def _sent(line: bytes, kind: type[Commitment]) -> Commitment | tuple[RoundKey, Anchor]:
    """A line of a queue; raises FormatError when it is neither such a commitment nor an anchor."""
    entry = from_json(line)
    sent: Commitment | tuple[RoundKey, Anchor]
    try:
        if set(entry) == {"key", "anchor"}:
            sent = RoundKey(**entry["key"]), Anchor(**entry["anchor"])
        elif not isinstance(sent := parse(entry), kind):
            raise FormatError("a commitment of the other queue")
        hash(sent)  # a list in place of a number would break the first comparison by key
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FormatError(f"malformed line: {error}") from error
    return sent
