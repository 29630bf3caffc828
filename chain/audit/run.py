"""The audit: everything that a run's files and the chain say, checked without trusting who wrote them.

Nothing but RUN, a reader's key and a ledger is needed: no model, no data. What is checked, in this order, so that the
first failure names the first bad item:

    genesis     canonical, possible, on the ledger with its members; the shared A drawn again from its seed
    readers     the keys of those whom the genesis names
    erasures    attested by coordinator and organisation, known to the ledger, as is their certificate (audit_erasures)
    generations signed, each from a round that was recorded, for an erasure that the ledger knows (audit_generations)
    per lane, generation and round
      record    the coordinator's signature, no gap, no fork, attempts counted, the parent's digest, nobody passed over
      manifests the organisation's signature, place, parent, membership, order, nonce, examples, bid, weight
      updates   present under their digest, sealed for everyone who may read them, arrays, finite, norm
      aggregate computed again (see audit_states)
      salts     the Merkle root and the commitment are those on the ledger; its anchor is the ledger's
      private   the members' chain says the same (see audit_private)
    the end     neither ledger nor commit queue has a round that the records lack; the private chain holds its anchor
    copies      the sealed copy of every document is the document
    the rest    every other file

What it cannot see: training itself, which is not run again; and what a coordinator signs anew behind a lane's newest
round on the ledger, namely attempts below the quorum. Every record before is bound by that round's commitment.

A file that nothing asked for is a failure, with exceptions that a crash leaves and a resumed run does not mind, counted
under `checked`: a `.partial` file, the salts of the record that would have come next, and an artifact that no record
names but that is what its name says, or whose keys never came.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from chain.audit.erasures import Erasures
from chain.audit.files import Files, RecordFile, block_place, copied_document, is_partial, place_of, salts_name
from chain.audit.generations import Closed, Generations
from chain.audit.ledger import LedgerAudit, Queue
from chain.audit.private import PrivateAudit, PrivateSource
from chain.audit.records import Head, Records, check_genesis
from chain.audit.report import AuditReport, Failure, Findings, What
from chain.audit.states import States
from chain.commitments import PrivateCommitment
from chain.ledger import open_ledger
from chain.private import PrivateRounds, open_private_ledger
from core.aggregation import WeightedUpdate
from core.canonical import ZERO_DIGEST, Address, Digest
from core.errors import (
    DestroyedError,
    FoedusError,
    IntegrityError,
    LedgerError,
    LedgerUnreachableError,
    UsageError,
)
from core.generations import lineage
from core.genesis import Genesis
from core.keys import Key
from core.ledger import Ledger, RoundCommitment
from core.lora import Layout
from core.rounds import RoundRecord, Salts
from core.signed import Signed
from core.storage.artifacts import KEYS, SEALED, Artifacts
from core.storage.readers import NOBODY, Readers
from core.storage.run_folder import RunFolder

__all__ = ["AuditReport", "Failure", "What", "verify", "verify_on_chain"]

T = TypeVar("T")


def verify(
    run: RunFolder,
    ledger: Ledger | None = None,
    *,
    private: PrivateSource | None = None,
    strict: bool = False,
    layout: Layout | None = None,
) -> AuditReport:
    """Audit a run with `run.key`; without a ledger offline, which leaves salts and anchors without their counterpart.

    `private`: the members' chain, for who may read it. `strict`: rounds that are not on the ledger yet are failures
    even while the run, or an erasure, goes on. `layout`: the base model's layers, when the auditor has them; otherwise
    their sizes are taken from the artifacts.
    """
    findings = Findings()
    # The queues come before the records, which a run in progress writes first.
    queue = Queue.read(run.queue, RoundCommitment, findings)
    private_queue = Queue.read(run.private_queue, PrivateCommitment, findings)
    with findings.guard(What.STORE, "artifacts", "a store that can be listed"):
        files = Files(run)
        if genesis := _genesis(files, findings):
            entries = [_entry(files, file) for file in files.records() if file.lane < len(genesis.lanes)]
            generations = Generations.read(genesis, files, findings)
            complete = strict or (_finished(genesis, entries, generations) and not _erasing(run, ledger))
            asked = LedgerAudit(ledger, genesis, files, findings, queue, complete, strict)
            members = PrivateAudit(private, genesis, findings, private_queue, complete)
            _Audit(run, entries, generations, asked, members).federation(layout)
    return findings.report()


def verify_on_chain(
    run: RunFolder, chain: str, state: Path, *, private: str = "none", contract: Address | None = None,
    strict: bool = False,
) -> AuditReport:  # fmt: skip
    """Audit a run against the contract of its genesis (or `contract`) on a chain, read without a key.

    `chain` is embedded, anvil or a URL, as for `open_ledger`, and so is `private`, the members' chain, or none. A chain
    that cannot be reached, or that has no such contract, is a failure; the rest is audited all the same.
    """
    try:
        genesis = run.genesis
    except FoedusError:
        return verify(run, strict=strict)  # and the audit says that it cannot be read
    failures: list[Failure] = []
    wanted = contract or genesis.chain.contract
    public = _opened(failures, chain, wanted, lambda: open_ledger(chain, state, None, wanted))
    members = None
    if public and genesis.private and private != "none":
        own = genesis.private.contract
        ledger = _opened(failures, private, own, lambda: open_private_ledger(private, state, None, own))
        members = PrivateRounds(ledger, public.bound, genesis.private.anchor_every) if ledger else None
    report = verify(run, public, private=members, strict=strict)
    return replace(report, failures=(*failures, *report.failures))


def _opened(failures: list[Failure], chain: str, contract: Address, opening: Callable[[], T]) -> T | None:
    """What `opening` opens, or None and a failure."""
    try:
        return opening()
    except (LedgerError, UsageError) as error:
        what = What.CHAIN_UNREACHABLE if isinstance(error, LedgerUnreachableError) else What.CONTRACT
        failures.append(Failure(what.value, chain, str(error), f"contract {contract}"))
        return None


@dataclass(frozen=True)
class _Entry:
    """A file in records/, and what was read from it."""

    file: RecordFile
    signed: Signed[RoundRecord] | None
    error: str = ""


class _Audit:
    """An audit whose genesis has been read."""

    def __init__(
        self,
        run: RunFolder,
        entries: list[_Entry],
        generations: Generations,
        ledger: LedgerAudit,
        private: PrivateAudit,
    ) -> None:
        self.genesis, self.files, self.findings, self.entries = ledger.genesis, ledger.files, ledger.findings, entries
        self.generations, self.ledger, self.private = generations, ledger, private
        self.records = Records(self.genesis, self.findings)
        self.readers = self._readers()
        self.run = run
        self.artifacts = Artifacts(run.blobs, self.genesis.salt, self.readers or NOBODY, self._key())
        self.erasures = Erasures.read(self.genesis, self.files, self.findings)
        self.lines = {lane: self._line(lane, generations.last(lane)) for lane in range(len(self.genesis.lanes))}
        self.states = States(
            self.artifacts,
            self.files,
            self.genesis,
            self.findings,
            readers_known=self.readers is not None,
            erasures=self.erasures,
            served=frozenset(name for line in self.lines.values() for record in line for name in record.states),
        )

    def federation(self, layout: Layout | None) -> None:
        """Check the genesis against everything else, then lane by lane."""
        named = {entry.signed.value.genesis for entry in self.entries if entry.signed}
        if named and self.records.digest not in named:
            self.findings.fail(What.GENESIS, "genesis.json", self.records.digest, f"{min(named)}, which records name")
        self.ledger.check_run()
        self.private.check_run()
        self.erasures.check(self.generations.opened, self.ledger)
        self.states.found(self._updates(), layout)
        for lane in range(len(self.genesis.lanes)):
            self._lane(lane, [entry for entry in self.entries if entry.file.lane == lane])
        self.ledger.queue.check_end(self.files, complete=self.ledger.complete)
        self.private.check_end(self.files)
        self._copies()
        self._leftovers()

    def _line(self, lane: int, generation: int) -> list[RoundRecord]:
        """The rounds that a lane's generation has grown through."""
        records = [
            e.signed for e in self.entries if e.signed and e.file.lane == lane and e.file.generation <= generation
        ]
        opened = {g: signed.value for g, signed in self.generations.opened[lane].items() if g <= generation}
        return [signed.value for signed in lineage(records, opened)]

    def _readers(self) -> Readers | None:
        """Whose keys the run is sealed for; None when that cannot be read."""
        with self.findings.guard(What.READERS, "readers.json", "the keys of those whom the genesis names"):
            readers = self.files.read("readers.json", Readers)
            readers.check(self.genesis)
            self.findings.checked["readers"] += len(readers.of())
            return readers
        return None

    def _key(self) -> Key | None:
        """The auditor's key; without one nothing that is sealed can be audited."""
        if (key := self.run.key) is None:
            self.findings.fail(What.READERS, "genesis.json", "no key", "the key of a reader")
        return key

    def _lane(self, lane: int, entries: list[_Entry]) -> None:
        last = self.generations.last(lane)
        for entry in entries:
            if entry.file.generation > last:
                where = f"{entry.file.where}, {entry.file.name}"
                self.findings.fail(What.GENERATION, where, entry.file.generation, f"at most {last}")
        for generation in range(last + 1):
            own = [entry for entry in entries if entry.file.generation == generation]
            head = self._generation(lane, generation, own)
        self.ledger.check_head(lane, max(last, self.erasures.last(lane)))
        if head.round < self.generations.rounds(lane, last):
            self._unused_salts(salts_name(lane, last, head.round + 1, head.attempt + 1))

    def _generation(self, lane: int, generation: int, entries: list[_Entry]) -> Head:
        """The rounds of one generation; returns where they end."""
        head, committed = self.generations.begin(lane, generation, self.states, self.ledger)
        for entry in entries:
            if entry.signed is None:
                where = f"{entry.file.where}, {entry.file.name}"
                self.findings.fail(What.RECORD, where, entry.error, "the canonical form of a signed record")
                head.lose(entry.file)
                committed = None
            else:
                committed = self._round(entry.signed, entry.file, head, committed)
        if head.round > (last := self.generations.rounds(lane, generation)):
            self.findings.fail(What.ROUNDS, f"lane {lane}", f"round {head.round}", f"at most round {last}")
        self.generations.newest[lane] = head.previous
        self.ledger.check_end(lane, generation, head.round + 1)
        return head

    def _round(
        self, signed: Signed[RoundRecord], file: RecordFile, head: Head, committed: Digest | None
    ) -> Digest | None:
        """One record and all that hangs on it; returns the lane's newest commitment."""
        record, where = signed.value, f"{file.where}, {file.name}"
        self.records.signature(signed, file)
        gap = record.round > head.round + 1
        if not self.records.follows(record, head, where):
            return committed
        self.records.content(record, head, where)
        if not record.admitted:
            self.records.asked(record, head, where)
            self.states.open(What.AGGREGATE, record.aggregate, file.where, head.members)
            head.advance(record, head.state)
            return committed
        weights = self.records.admitted(record, head, file.where)
        if record.reaggregated:
            self.records.summed_again(record, head, self._line(record.lane, record.generation - 1), where)
        else:
            self.records.asked(record, head, where)
        updates = self._summable(record, head, weights, file.where)
        recomputed = self.findings.recomputed
        state = self.states.after(record, head.state, updates, file.where, head.members)
        self.findings.attested += self.findings.recomputed == recomputed and record.aggregate in self.erasures.listed
        head.advance(record, state)
        salts = self._salts(record, file)
        committed = self.ledger.check_round(record, salts, file, None if gap else committed)
        self.private.check_round(record, salts, file)
        place = record.lane, head.generation, record.round
        self.generations.closed[place] = Closed(record.digest, record.aggregate, committed)
        return committed

    def _salts(self, record: RoundRecord, file: RecordFile) -> Salts | None:
        """The salts of a record, one for everything that is committed; None when they cannot be read."""
        where = f"{file.where}, {file.salts}"
        if record.digest in self.erasures.unsalted and self._desalted(record, file):
            return None
        with self.findings.guard(What.SALTS, where, "a salt for the aggregate and for every update"):
            salts = self.files.read(file.salts, Salts)
            if extra := sorted(set(salts.updates) - {admitted.organisation for admitted in record.admitted}):
                raise IntegrityError(f"there is a salt for {extra[0]}, who was not admitted")
            self.findings.checked["salts"] += 1
            return salts
        return None

    def _desalted(self, record: RoundRecord, file: RecordFile) -> bool:
        """Whether an erasure has taken a record's salts; one that is finished must have."""
        place = file.salts.removesuffix(".json")
        self.files.take_sealed(place)
        left = [name for name in (file.salts, f"artifacts/{place}{KEYS}") if name in self.files]
        if left and record.digest in self.erasures.bare:
            self.findings.fail(What.SALTS, f"{file.where}, {left[0]}", "salts", "none: an erasure destroyed them")
        self.findings.checked["destroyed salts"] += file.salts not in self.files
        return file.salts not in self.files

    def _summable(
        self, record: RoundRecord, head: Head, weights: dict[Address, float], place: str
    ) -> list[WeightedUpdate] | None:
        """Every update with the weight that it must have; None when one of them cannot be summed."""
        updates = []
        for admitted in record.admitted:
            where = f"{place}, {self.records.name(admitted.organisation)}"
            name, organisation = admitted.signed.value.update, admitted.organisation
            if self.states.summable(name, head.state, where, head.members) and organisation in weights:
                source = partial(self.artifacts.open, name)
                updates.append(WeightedUpdate(organisation, weights[organisation], source))
        return updates if len(updates) == len(record.admitted) else None

    def _updates(self) -> Iterator[Digest]:
        """The digest of every admitted update."""
        for entry in self.entries:
            if entry.signed:
                yield from (admitted.signed.value.update for admitted in entry.signed.value.admitted)

    def _unused_salts(self, name: str) -> None:
        """Salts are written before their record: a crash between leaves those of the record that comes next."""
        if name in self.files:
            with self.findings.guard(What.SALTS, name, "salts"):
                self.files.read(name, Salts)
                self.findings.checked["unused salts"] += 1

    def _copies(self) -> None:
        """Who has nothing but the store reads the same documents; a crash may leave the newest without a copy."""
        for name in (document for document in self.files.documents() if document not in self.files.left):
            place = name.removesuffix(".json")
            self.files.take_sealed(place)
            if f"artifacts/{place}{KEYS}" in self.files or self.ledger.complete:
                self._copy(name, place)
            else:
                self.findings.checked["pending copies"] += 1

    def _copy(self, name: str, place: str) -> None:
        of = place_of(name)
        with self.findings.guard(What.WRAPS, f"artifacts/{place}{KEYS}", "a key that everyone who may read can open"):
            self.artifacts.unlock(place)
            with self.findings.guard(What.COPY, f"artifacts/{place}{SEALED}", f"a sealed copy of {name}"):
                if self.artifacts.open_document(name) != (self.run.folder / name).read_bytes():
                    raise IntegrityError("another document")
                self.findings.checked["sealed copies"] += 1
            if self.readers:
                self.artifacts.check_wraps(place, self.generations.members(*of) if of else None)

    def _leftovers(self) -> None:
        """The files that no check has asked for."""
        self.findings.checked["files"] = len(self.files.names)
        for name in self.files.left:
            if is_partial(name):
                self.findings.checked["partial files"] += 1
            elif place := block_place(name):
                self._unreferenced(name, place)
            elif (copied := copied_document(name)) and self._came_later(copied):
                self.findings.checked["pending copies"] += 1
            else:
                self.findings.fail(What.UNEXPECTED_FILE, name, "a file", "none: no record asks for it")

    def _unreferenced(self, name: str, place: str) -> None:
        """A block that no record names: what came later, or what a crash left behind."""
        if name.endswith(KEYS):
            if f"artifacts/{place}{SEALED}" not in self.files:
                self.findings.fail(What.ARTIFACT, name, "keys", "something that they open")
            return
        self.findings.checked["unreferenced artifacts"] += 1
        with (
            self.findings.guard(What.ARTIFACT, name, "the AdapterState that it is named for"),
            suppress(DestroyedError),
        ):
            self.artifacts.check_block(place)

    def _came_later(self, document: str) -> bool:
        """Whether a document was written while the audit went on."""
        return document not in self.files and (self.run.folder / document).exists()


def _entry(files: Files, file: RecordFile) -> _Entry:
    try:
        return _Entry(file, files.read_signed(file.name, RoundRecord))
    except (FoedusError, OSError) as error:
        return _Entry(file, None, str(error))


def _finished(genesis: Genesis, entries: list[_Entry], generations: Generations) -> bool:
    """Whether every lane in which somebody learns has closed the last round of its generation."""
    last = {lane: generations.last(lane) for lane in range(len(genesis.lanes))}
    records = (entry.signed.value for entry in entries if entry.signed)
    closed = {
        (r.lane, r.generation) for r in records if r.admitted and r.round >= generations.rounds(r.lane, r.generation)
    }
    return closed >= {(lane, last[lane]) for lane in last if generations.members(lane, last[lane])}


def _erasing(run: RunFolder, ledger: Ledger | None) -> bool:
    """Whether an erasure is under way, whose rounds may still be on their way to the ledger.

    It is until the ledger was told of its certificate; what cannot be read or asked is for other checks to name.
    """
    with suppress(FoedusError):
        for attestation in (signed.value for signed in run.erasures()):
            if run.certificate(attestation) is None:
                return True
            known = ledger.erasure(run.genesis.digest, attestation.erasure) if ledger else None
            if known and known.certificate == ZERO_DIGEST:
                return True
    return False


def _genesis(files: Files, findings: Findings) -> Genesis | None:
    with findings.guard(What.GENESIS, "genesis.json", "the canonical form of a possible genesis"):
        genesis = files.read("genesis.json", Genesis)
        check_genesis(genesis)
        findings.checked["genesis"] += 1
        return genesis
    return None
