"""The audit: everything that a run's files and the chain say, checked without trusting who wrote them.

Nothing but RUN and a ledger is needed: no model, no data, no key. What is checked, in this order, so that the first
failure names the first bad item:

    genesis     canonical, possible, on the ledger with its members; the shared A drawn again from its seed
    per lane, per round
      record    the coordinator's signature, no gap, no fork, attempts counted, the parent's digest, nobody passed over
      manifests the organisation's signature, place, parent, membership, order, nonce, examples, bid, weight
      updates   present under their digest, arrays, finite, norm
      aggregate computed again (see audit_states)
      salts     the Merkle root and the commitment are those on the ledger; its anchor is the ledger's
    the end     neither ledger nor commit queue has a round that the records lack
    the rest    every other file

What it cannot see: training itself, which is not run again; and what a coordinator signs anew behind a lane's newest
round on the ledger, namely attempts below the quorum. Every record before is bound by that round's commitment.

A file that nothing asked for is a failure, with three exceptions that a crash leaves and a resumed run does not mind,
counted under `checked`: a `.partial` file, the salts of the record that would have come next, and an artifact that no
record names but that is what its name says.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from chain.audit_files import Files, RecordFile, artifact_digest, is_partial, salts_name
from chain.audit_ledger import LedgerAudit, Queue
from chain.audit_report import AuditReport, Failure, Findings, What
from chain.audit_rounds import Head, Records, check_genesis
from chain.audit_states import States
from chain.ethereum import open_ledger
from core.aggregation import WeightedUpdate
from core.canonical import ZERO_DIGEST, Address, Digest
from core.errors import CovenantError, LedgerError, LedgerUnreachableError, UsageError
from core.ledger import Ledger
from core.lora import Layout
from core.rounds import Genesis, RoundRecord, Salts, SignedRecord
from core.store import RunFolder

__all__ = ["AuditReport", "Failure", "What", "verify", "verify_on_chain"]


def verify(
    run: RunFolder, ledger: Ledger | None = None, *, strict: bool = False, layout: Layout | None = None
) -> AuditReport:
    """Audit a run; without a ledger offline, which leaves salts and anchors without their counterpart.

    `strict`: rounds that are not on the ledger yet are failures even while the run goes on. `layout`: the base
    model's layers, when the auditor has them; otherwise their sizes are taken from the artifacts.
    """
    findings = Findings()
    queue = Queue.read(run.queue, findings)  # before the records, which a run in progress writes first
    files = Files(run.folder)
    genesis = _genesis(files, findings)
    if genesis:
        entries = [_entry(files, file) for file in files.records() if file.lane < len(genesis.lanes)]
        complete = strict or _finished(genesis, entries)
        asked = LedgerAudit(ledger, genesis, files, findings, queue, complete)
        _Audit(run, genesis, files, findings, entries, asked).federation(layout)
    _leftovers(run, files, findings, audited=genesis is not None)
    return findings.report()


def verify_on_chain(
    run: RunFolder, chain: str, state: Path, *, contract: Address | None = None, strict: bool = False
) -> AuditReport:
    """Audit a run against the contract of its genesis (or `contract`) on a chain, read without a key.

    `chain` is embedded, anvil or a URL, as for `open_ledger`. A chain that cannot be reached, or that has no such
    contract, is a failure; the rest is audited all the same.
    """
    try:
        wanted = contract or run.genesis.chain.contract
    except CovenantError:
        return verify(run, strict=strict)  # the genesis cannot be read, and the audit says so
    try:
        ledger = open_ledger(chain, state, None, wanted)
    except (LedgerError, UsageError) as error:
        what = What.CHAIN_UNREACHABLE if isinstance(error, LedgerUnreachableError) else What.CONTRACT
        failure = Failure(what.value, chain, str(error), f"contract {wanted}")
        report = verify(run, strict=strict)
        return replace(report, failures=(failure, *report.failures))
    return verify(run, ledger, strict=strict)


@dataclass(frozen=True)
class _Entry:
    """A file in records/, and what was read from it."""

    file: RecordFile
    signed: SignedRecord | None
    error: str = ""


class _Audit:
    """An audit whose genesis has been read."""

    def __init__(
        self,
        run: RunFolder,
        genesis: Genesis,
        files: Files,
        findings: Findings,
        entries: list[_Entry],
        ledger: LedgerAudit,
    ) -> None:
        self.genesis, self.files, self.findings, self.entries, self.ledger = genesis, files, findings, entries, ledger
        self.records = Records(genesis, findings)
        self.states = States(run.artifacts, files, genesis, findings)

    def federation(self, layout: Layout | None) -> None:
        """Check the genesis against everything else, then lane by lane."""
        named = {entry.signed.record.genesis for entry in self.entries if entry.signed}
        if named and self.records.digest not in named:
            self.findings.fail(What.GENESIS, "genesis.json", self.records.digest, f"{min(named)}, which records name")
        self.ledger.check_run()
        self.states.found(self._updates(), layout)
        for lane in range(len(self.genesis.lanes)):
            self._lane(lane, [entry for entry in self.entries if entry.file.lane == lane])
        self.ledger.check_queue()

    def _lane(self, lane: int, entries: list[_Entry]) -> None:
        initial = self.states.initial
        head = Head(self.records.digest, initial, initial.digest if initial else None, self.records.digest)
        committed: Digest | None = ZERO_DIGEST
        for entry in entries:
            if entry.signed is None:
                where = f"{entry.file.where}, {entry.file.name}"
                self.findings.fail(What.RECORD, where, entry.error, "the canonical form of a signed record")
                head.lose(entry.file)
                committed = None
            else:
                committed = self._round(entry.signed, entry.file, head, committed)
        self.ledger.check_end(lane, 0, head.round + 1)
        if head.round < self.genesis.training.rounds:
            self._unused_salts(salts_name(lane, 0, head.round + 1, head.attempt + 1))

    def _round(self, signed: SignedRecord, file: RecordFile, head: Head, committed: Digest | None) -> Digest | None:
        """One record and all that hangs on it; returns the lane's newest commitment."""
        record, where = signed.record, f"{file.where}, {file.name}"
        self.records.signature(signed, file)
        gap = record.round > head.round + 1
        if not self.records.follows(record, head, where):
            return committed
        self.records.content(record, head, where)
        if not record.admitted:
            self.records.asked(record, where)
            self.states.open(What.AGGREGATE, record.aggregate, file.where)
            head.advance(record, head.state)
            return committed
        weights = self.records.admitted(record, head, file.where)
        self.records.asked(record, where)
        updates = self._summable(record, head, weights, file.where)
        state = self.states.after(record, head.state, updates, file.where)
        head.advance(record, state)
        return self.ledger.check_round(record, file, None if gap else committed)

    def _summable(
        self, record: RoundRecord, head: Head, weights: dict[Address, float], place: str
    ) -> list[WeightedUpdate] | None:
        """Every update with the weight that it must have; None when one of them cannot be summed."""
        updates = []
        for admitted in record.admitted:
            where = f"{place}, {self.records.name(admitted.organisation)}"
            update = self.states.update(admitted.signed.manifest.update, head.state, where)
            if update and admitted.organisation in weights:
                updates.append(WeightedUpdate(admitted.organisation, weights[admitted.organisation], update))
        return updates if len(updates) == len(record.admitted) else None

    def _updates(self) -> Iterator[Digest]:
        """The digest of every admitted update."""
        for entry in self.entries:
            if entry.signed:
                yield from (admitted.signed.manifest.update for admitted in entry.signed.record.admitted)

    def _unused_salts(self, name: str) -> None:
        """Salts are written before their record: a crash between leaves those of the record that comes next."""
        if name in self.files:
            with self.findings.guard(What.SALTS, name, "salts"):
                self.files.read(name, Salts)
                self.findings.checked["unused salts"] += 1


def _entry(files: Files, file: RecordFile) -> _Entry:
    try:
        return _Entry(file, files.read(file.name, SignedRecord))
    except (CovenantError, OSError) as error:
        return _Entry(file, None, str(error))


def _finished(genesis: Genesis, entries: list[_Entry]) -> bool:
    """Whether every lane has closed the last round of the genesis."""
    records = (entry.signed.record for entry in entries if entry.signed)
    closed = {record.lane for record in records if record.admitted and record.round >= genesis.training.rounds}
    return closed >= set(range(len(genesis.lanes)))


def _genesis(files: Files, findings: Findings) -> Genesis | None:
    with findings.guard(What.GENESIS, "genesis.json", "the canonical form of a possible genesis"):
        genesis = files.read("genesis.json", Genesis)
        check_genesis(genesis)
        findings.checked["genesis"] += 1
        return genesis
    return None


def _leftovers(run: RunFolder, files: Files, findings: Findings, *, audited: bool) -> None:
    """The files that no check has asked for. Without a genesis only artifacts can be judged."""
    findings.checked["files"] = len(files.names)
    for name in files.left:
        if is_partial(name):
            findings.checked["partial files"] += 1
        elif digest := artifact_digest(name):
            findings.checked["unreferenced artifacts"] += 1
            with findings.guard(What.ARTIFACT, name, f"an AdapterState of digest {digest}"):
                files.take(name)
                run.artifacts.open(digest)
        elif audited:
            findings.fail(What.UNEXPECTED_FILE, name, "a file", "none: no record asks for it")
