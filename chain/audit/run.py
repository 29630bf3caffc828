"""The audit of a run: its files and the chain, checked without trust in who wrote them.

Nothing but RUN, a reader's key and a ledger is needed: no model, no data. Checks come in this order, so that the first
failure names the first bad item; each part is a module of this package:

    genesis       canonical, possible, on the ledger with its members; the shared A drawn again from its seed
    readers       the keys of those whom the genesis names
    memberships   signed by coordinator, newcomers, members and those who left; known to the ledger
    erasures      attested by coordinator and organisation; attestation and certificate known to the ledger
    generations   signed, each from a round that was recorded, for an erasure that the ledger knows
    per lane, generation and round
      records     the coordinator's signature, no gap, no fork, attempts counted, the parent's digest, nobody passed
                  over; the manifests' signatures, places, parents, membership, order, nonces, examples, bids, weights
      states      updates present under their digest, sealed for their readers, arrays, finite, norm; the aggregate
                  computed again, and there unless the run says that it is pruned
      salts       Merkle root and commitment equal to the ledger's (ledger), the anchor to its receipt (queue)
      private     the same on the members' chain
    epochs        the amounts behind every root of credit on the ledger; the newest are what the rounds have paid
    calibration   signed, of members' records, for something that the run served
    the end       no round on the ledger or in a queue that the records lack; the private chain holds its anchor
    store         the sealed copy of every document, and every other file

It cannot see training itself, which is not run again; nor what a coordinator signs anew behind a lane's newest round on
the ledger, namely attempts below the quorum. Every record before is bound by that round's commitment.

Some files that nothing asks for are left by a crash and harmless to a resumed run. They are counted under `checked`: a
`.partial` file, the salts of the record that would have come next, and an artifact that no record names but that fits
its name, or whose keys never came.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

from chain.audit.aggregates import StateAudit, read_pruned
from chain.audit.calibration import check_calibration
from chain.audit.epochs import check_epochs
from chain.audit.erasures import ErasureAudit
from chain.audit.files import Files, RecordFile, salts_name
from chain.audit.generations import Closed, GenerationAudit
from chain.audit.ledger import LedgerAudit
from chain.audit.memberships import amended, check_changes
from chain.audit.origin import check_origin
from chain.audit.private import PrivateAudit, PrivateSource
from chain.audit.queue import QueueAudit
from chain.audit.reading import Members, reading_ahead
from chain.audit.records import Head, RecordAudit
from chain.audit.report import AuditReport, Failure, Findings, What
from chain.audit.salts import SaltAudit
from chain.audit.selection import SelectionAudit
from chain.audit.store import StoreAudit
from chain.commitments import PrivateCommitment
from chain.ledger import open_ledger
from chain.private import PrivateRounds, open_private_ledger
from core.aggregation import WeightedUpdate
from core.canonical import ZERO_DIGEST, Address, Digest
from core.errors import FoedusError, IntegrityError, LedgerError, LedgerUnreachableError, UsageError
from core.founding import Founding
from core.generations import lineage
from core.genesis import Genesis
from core.ledger import Ledger, RoundCommitment
from core.lora import Layout
from core.model_selection import Measures, completes
from core.round_key import RoundKey
from core.rounds import RoundRecord
from core.signed import Signed
from core.storage.artifacts import Artifacts
from core.storage.readers import NOBODY, Readers
from core.storage.run_folder import FOUNDING, RunFolder

__all__ = ["AuditReport", "Failure", "What", "verify", "verify_on_chain"]

T = TypeVar("T")
_KEPT_BYTES = 128 * 2**20
"""Of a round's updates, so much stays in memory from their checks to their sum."""


def verify(
    run: RunFolder,
    ledger: Ledger | None = None,
    *,
    private: PrivateSource | None = None,
    strict: bool = False,
    layout: Layout | None = None,
    measures: Measures | None = None,
    processes: int = 0,
) -> AuditReport:
    """Audit a run with `run.key`; without a ledger offline, which leaves salts and anchors without their counterpart.

    `private`: the members' chain, for who may read it. `strict`: rounds that are not on the ledger yet are failures
    even while the run, or an erasure, goes on. `layout`: the base model's layers, when the auditor has them; otherwise
    their sizes are taken from the artifacts. `measures` measures updates and rounds again, where base and data are.
    `processes` others read artifacts ahead, where there are many: they import the module that this process began with.
    """
    findings = Findings()
    # The queues come before the records, which a run in progress writes first.
    queue = QueueAudit.read(run.queue, RoundCommitment, findings)
    private_queue = QueueAudit.read(run.private_queue, PrivateCommitment, findings)
    with findings.guard(What.STORE, "artifacts", "a store that can be listed"):
        files, genesis = Files(run), None
        with findings.guard(What.GENESIS, "genesis.json", "the canonical form of a possible genesis"):
            genesis = files.read("genesis.json", Genesis.from_dict)
            findings.checked["genesis"] += 1
        if genesis:
            genesis = amended(genesis, files, findings)
            entries = [_Entry.read(files, file) for file in files.records() if file.lane < len(genesis.lanes)]
            generations = GenerationAudit.read(genesis, files, findings)
            complete = strict or _is_complete(run, ledger, entries, generations)
            asked = LedgerAudit(ledger, genesis, files, findings, queue, complete, strict)
            members = PrivateAudit(private, genesis, findings, private_queue, complete)
            _Audit(run, entries, generations, asked, members, measures).check_federation(layout, processes)
    return findings.report()


def verify_on_chain(  # noqa: PLR0913 - what an auditor may have, one by one
    run: RunFolder, chain: str, state: Path, *, private: str = "none", contract: Address | None = None,
    strict: bool = False, measures: Measures | None = None, processes: int = 0,
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
    address = contract or genesis.chain.contract
    public = _opened(failures, chain, address, lambda: open_ledger(chain, state, None, address))
    members = None
    if public and genesis.private and private != "none":
        own = genesis.private.contract
        ledger = _opened(failures, private, own, lambda: open_private_ledger(private, state, None, own))
        members = PrivateRounds(ledger, public.bound, genesis.private.anchor_every) if ledger else None
    report = verify(run, public, private=members, strict=strict, measures=measures, processes=processes)
    return replace(report, failures=(*failures, *report.failures))


def _opened(failures: list[Failure], chain: str, contract: Address, opening: Callable[[], T]) -> T | None:
    """The ledger that `opening` opens, or None and a failure."""
    try:
        return opening()
    except (IntegrityError, LedgerError, UsageError) as error:
        what = What.CHAIN_UNREACHABLE if isinstance(error, LedgerUnreachableError) else What.CONTRACT
        failures.append(Failure(what.value, chain, str(error), f"contract {contract}"))
        return None


@dataclass(frozen=True)
class _Entry:
    """A file in records/, and its record or the reason why there is none."""

    file: RecordFile
    signed: Signed[RoundRecord] | None
    error: str = ""

    @classmethod
    def read(cls, files: Files, file: RecordFile) -> Self:
        """Read a file."""
        try:
            return cls(file, files.read_signed(file.name, RoundRecord))
        except (FoedusError, OSError) as error:
            return cls(file, None, str(error))


class _Audit:
    """An audit whose genesis has been read."""

    def __init__(
        self,
        run: RunFolder,
        entries: list[_Entry],
        generations: GenerationAudit,
        ledger: LedgerAudit,
        private: PrivateAudit,
        measures: Measures | None,
    ) -> None:
        genesis, files, findings = ledger.genesis, ledger.files, ledger.findings
        self.run = run
        self.genesis, self.findings, self.entries = genesis, findings, entries
        self.generations, self.ledger, self.private = generations, ledger, private
        self._lines: dict[tuple[int, int], list[RoundRecord]] = {}
        readers: Readers | None = None
        with findings.guard(What.READERS, "readers.json", "the keys of those whom the genesis names"):
            found = files.read("readers.json", Readers.from_dict)
            found.check(genesis)
            readers = found.since(genesis)
            findings.checked["readers"] += len(readers.of())
        if (key := run.key) is None:
            findings.fail(What.READERS, "genesis.json", "no key", "the key of a reader")
        self.artifacts = Artifacts(run.blobs, genesis.salt, readers or NOBODY, key)
        self.records = RecordAudit(genesis, findings)
        self.selection = SelectionAudit(genesis, files, findings, self.records)
        self.erasures = ErasureAudit.read(genesis, files, findings)
        self.salts = SaltAudit(files, findings, self.erasures)
        known = readers is not None
        self.store = StoreAudit(self.artifacts, files, findings, generations, known, ledger.complete)
        last = {lane: generations.last(lane) for lane in range(len(genesis.lanes))}
        self.lines = {lane: (generations.members(lane, g), self._line(lane, g)) for lane, g in last.items()}
        served = frozenset(name for _, line in self.lines.values() for record in line for name in record.states)
        self.states = StateAudit(
            self.artifacts, files, genesis, findings, known, self.erasures, served, measures=measures,
            pruned=read_pruned(files, findings),
        )  # fmt: skip

    def check_federation(self, layout: Layout | None, processes: int) -> None:
        """Check the genesis against everything else, then lane by lane."""
        named = {entry.signed.value.genesis for entry in self.entries if entry.signed}
        if named and self.records.digest not in named:
            self.findings.fail(What.GENESIS, "genesis.json", self.records.digest, f"{min(named)}, which records name")
        # Derived keys are anybody's: whoever holds them agrees to nothing.
        simulated = all(member.derived for member in self.genesis.organisations) and not self.genesis.nonces
        if FOUNDING in self.ledger.files or not simulated:
            with self.findings.guard(What.FOUNDING, FOUNDING, "registrations, nonces and consents of the members"):
                self.ledger.files.read(FOUNDING, Founding.from_dict).check(self.genesis)
                self.findings.checked["members who agreed"] += len(self.genesis.organisations)
        check_origin(self.run, self.genesis, self.findings)
        self.ledger.check_run()
        self.private.check_run()
        self.erasures.check(self.generations.opened, self.ledger)
        check_changes(self.generations, self.ledger)
        records = (entry.signed.value for entry in self.entries if entry.signed)
        self.states.draw_fresh((a.signed.value.update for record in records for a in record.admitted), layout)
        lanes = [[e for e in self.entries if e.file.lane == lane] for lane in range(len(self.genesis.lanes))]
        wanted = list(self._wanted(entry for own in lanes for entry in own))
        with reading_ahead(self.artifacts, wanted, processes) as read:
            self.states.read = read
            for lane, own in enumerate(lanes):
                self._check_lane(lane, own)
        self.ledger.queue.check_end(self.ledger.files, complete=self.ledger.complete)
        self.private.check_end(self.ledger.files)
        check_epochs(self.ledger, [line for _, line in self.lines.values()])
        check_calibration(self.genesis, self.ledger.files, self.findings, self.lines)
        self.store.check_copies()
        self.store.check_leftovers()

    def _wanted(self, entries: Iterable[_Entry]) -> Iterator[tuple[Digest, Members]]:
        """What the states of records will be checked with, in order, and who may read it."""
        for entry in entries:
            if entry.signed and entry.file.generation <= self.generations.last(entry.file.lane):
                members = self.generations.members(entry.file.lane, entry.file.generation)
                for name in (
                    *(a.signed.value.update for a in entry.signed.value.admitted),
                    entry.signed.value.aggregate,
                ):
                    yield name, members

    def _line(self, lane: int, generation: int) -> list[RoundRecord]:
        """The rounds that a lane's generation has grown through, put together once."""
        if (lane, generation) not in self._lines:
            records = [
                e.signed for e in self.entries if e.signed and e.file.lane == lane and e.file.generation <= generation
            ]
            opened = {g: signed.value for g, signed in self.generations.opened[lane].items() if g <= generation}
            self._lines[lane, generation] = [signed.value for signed in lineage(records, opened)]
        return self._lines[lane, generation]

    def _check_lane(self, lane: int, entries: list[_Entry]) -> None:
        last = self.generations.last(lane)
        for entry in entries:
            if entry.file.generation > last:
                where = f"{entry.file.where}, {entry.file.name}"
                self.findings.fail(What.GENERATION, where, entry.file.generation, f"at most {last}")
        for generation in range(last + 1):
            own = [entry for entry in entries if entry.file.generation == generation]
            head = self._check_generation(lane, generation, own)
        self.ledger.check_head(lane, max(last, self.erasures.last(lane)))
        if head.round < self.generations.rounds(lane, last):
            self.salts.check_unused(salts_name(lane, last, head.round + 1, head.attempt + 1))

    def _check_generation(self, lane: int, generation: int, entries: list[_Entry]) -> Head:
        """The rounds of one generation; returns the head that they lead to."""
        head, committed = self.generations.begin(lane, generation, self.states, self.ledger)
        for entry in entries:
            if entry.signed is None:
                where = f"{entry.file.where}, {entry.file.name}"
                self.findings.fail(What.RECORD, where, entry.error, "the canonical form of a signed record")
                head.lose(entry.file)
                committed = None
            else:
                committed = self._check_round(entry.signed, entry.file, head, committed)
        if head.round > (last := self.generations.rounds(lane, generation)):
            self.findings.fail(What.ROUNDS, f"lane {lane}", f"round {head.round}", f"at most round {last}")
        self.generations.newest[lane] = head.previous
        self.ledger.check_end(lane, generation, head.round + 1)
        return head

    def _check_round(
        self, signed: Signed[RoundRecord], file: RecordFile, head: Head, committed: Digest | None
    ) -> Digest | None:
        """One record and all that hangs on it; returns the lane's newest commitment."""
        record, where = signed.value, f"{file.where}, {file.name}"
        self.records.check_signature(signed, file)
        gap = record.round > head.round + 1
        if not self.records.follows(record, head, where):
            return committed
        self.records.check_content(record, head, where)
        self.selection.check_measured(record, file)
        if not record.admitted:
            self.selection.check(record, self._line(record.lane, head.generation), head, where)
            self.states.open_aggregate(record, file.where, head.members)
            self.states.check_rounded(record, head.state, where)
            head.advance(record, head.state)
            return committed
        weights = self.records.check_admitted(record, head, file.where)
        if record.reaggregated:
            erased = self.erasures.erased(record.lane, record.generation)
            self.records.check_reaggregated(record, erased, self._line(record.lane, record.generation - 1), where)
        else:
            self.selection.check(record, self._line(record.lane, head.generation), head, where)
        updates = self._updates(record, head, weights, file.where)
        line = self._line(record.lane, head.generation)
        updates = updates and self.states.counted(record, line, head.state, updates, file.where)
        recomputed = self.findings.recomputed
        state = self.states.after(record, head.state, updates, file.where, head.members)
        self.states.check_rounded(record, state, where)
        self.findings.attested += self.findings.recomputed == recomputed and record.aggregate in self.erasures.listed
        head.advance(record, state)
        salts = self.salts.read(record, file)
        # Behind a gap the parent's commitment is unknown.
        committed = self.ledger.check_round(record, salts, file, None if gap else committed)
        self.private.check_round(record, salts, file)
        key = RoundKey(self.records.digest, record.lane, head.generation, record.round)
        self.generations.closed[key] = Closed(record.digest, record.aggregate, committed, record.best)
        return committed

    def _updates(
        self, record: RoundRecord, head: Head, weights: dict[Address, float], where: str
    ) -> list[WeightedUpdate] | None:
        """Every update with the weight that it must have; None when one of them cannot be summed."""
        updates, kept = [], 0
        for admitted in record.admitted:
            own = f"{where}, {self.records.name(admitted.organisation)}"
            name, organisation = admitted.signed.value.update, admitted.organisation
            update = self.states.summable(name, head.state, own, head.members)
            if update is not None and organisation in weights:
                kept += update.nbytes
                # Else opened again when it is summed: a round's updates may not fit into memory together.
                source = update if kept <= _KEPT_BYTES else partial(self.artifacts.open, name)
                updates.append(WeightedUpdate(organisation, weights[organisation], source))
        return updates if len(updates) == len(record.admitted) else None


def _is_complete(run: RunFolder, ledger: Ledger | None, entries: list[_Entry], generations: GenerationAudit) -> bool:
    """Whether every round must be on the ledger by now: the run has ended, and so has every erasure.

    It has ended when every lane with members has closed the last round of its line, which a generation that adds no
    round has closed before it opens. An erasure ends when the ledger knows its certificate; what cannot be read or
    asked is for other checks to name.
    """
    genesis = generations.genesis
    for lane in range(len(genesis.lanes)):
        last = generations.last(lane)
        opened = {number: signed.value for number, signed in generations.opened[lane].items()}
        line = lineage([e.signed for e in entries if e.signed and e.file.lane == lane], opened)
        done = line and completes(genesis, line[-1].value, generations.rounds(lane, last))
        if generations.members(lane, last) and not done:
            return False
    if any(s.value.proposal.generation > generations.last(s.value.proposal.lane) for s in genesis.memberships):
        return False
    with suppress(FoedusError):
        for attestation in (signed.value for signed in run.erasures()):
            if run.certificate(attestation) is None:
                return False
            known = ledger.erasure(run.genesis.digest, attestation.erasure) if ledger else None
            if known and known.certificate == ZERO_DIGEST:
                return False
    return True
