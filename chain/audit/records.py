"""A lane's records: their signatures, their order, and the organisations that they admitted.

A record that cannot be read leaves a hole: what follows it is still checked, but not against it.
"""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field

from chain.audit.files import RecordFile
from chain.audit.report import Findings, What
from core.adapter import AdapterState
from core.aggregation import by_address
from core.canonical import Address, Digest
from core.genesis import Genesis
from core.model_selection import best_of, stops
from core.privacy import PrivacyClaims
from core.rounds import Admitted, Best, RoundRecord
from core.signed import Signed
from core.update import Organisation, UpdateManifest


@dataclass
class Head:
    """The head of a lane, as far as it was audited; None stands for a value that an unreadable record hides."""

    parent: Digest | None
    state: AdapterState | None
    aggregate: Digest | None
    previous: Digest | None
    """The record before, whatever it admitted."""
    members: tuple[Address, ...]
    generation: int = 0
    round: int = 0
    attempt: int = 0
    """The attempts at the next round that failed."""
    failed: tuple[RoundRecord, ...] = ()
    """These attempts; fewer, where one of them cannot be read."""
    best: Best | None = None
    """The best round so far, where rounds are compared."""
    late: tuple[Address, ...] = ()
    """Who was late in the newest round of this generation that admitted something."""
    before: Digest | None = None
    """The parent of that round, from which their updates grow."""

    def advance(self, record: RoundRecord, state: AdapterState | None) -> None:
        """Go on from a record; one that admitted nothing changes neither round nor state."""
        self.previous = record.digest
        if record.admitted:
            self.late, self.before = record.late, self.parent
            self.parent, self.state, self.aggregate = record.digest, state, record.aggregate
            self.round, self.attempt, self.failed, self.best = record.round, 0, (), record.best
        else:
            self.attempt, self.failed = record.attempt, (*self.failed, record)

    def lose(self, file: RecordFile) -> None:
        """Go on behind a record that cannot be read."""
        self.parent = self.state = self.aggregate = self.previous = self.before = None
        self.round, self.attempt, self.failed = file.round, 0, ()


@dataclass
class RecordAudit:
    """Checks of records against the genesis and against each other."""

    genesis: Genesis
    findings: Findings
    nonces: dict[Digest, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.members: Mapping[Address, Organisation] = {o.address: o for o in self.genesis.everyone}
        self.digest = self.genesis.digest
        self.claims = PrivacyClaims(self.genesis)

    def name(self, address: Address) -> str:
        """An organisation's name, for findings."""
        return self.members[address].name if address in self.members else address

    def check_signature(self, signed: Signed[RoundRecord], file: RecordFile) -> None:
        """The coordinator signed it, for this federation, for the round and attempt that its file names."""
        record, where = signed.value, f"{file.where}, {file.name}"
        got = record.lane, record.generation, record.round, record.attempt
        want = file.lane, file.generation, file.round, file.attempt
        self.findings.expect(What.FILE_NAME, where, got, want)
        with self.findings.guard(What.SIGNATURE, where, f"a signature of {self.genesis.coordinator}"):
            signed.verified(self.genesis)
        self.findings.checked["records"] += 1

    def follows(self, record: RoundRecord, head: Head, where: str) -> bool:
        """Whether the record continues the lane; False when its round is recorded already."""
        if record.round <= head.round:
            self.findings.fail(What.FORK, where, f"round {record.round} again", f"round {head.round + 1}")
            return False
        if record.round > head.round + 1:
            self.findings.fail(What.GAP, where, f"round {record.round}", f"round {head.round + 1}")
            head.parent = head.state = head.aggregate = head.previous = head.before = None
            head.attempt, head.failed = record.attempt - 1, ()
        self.findings.expect(What.ATTEMPT, where, record.attempt, head.attempt + 1)
        if head.parent is not None:
            self.findings.expect(What.PARENT, where, record.parent, head.parent)
        if head.previous is not None:
            self.findings.expect(What.PREVIOUS, where, record.previous, head.previous)
        return True

    def check_content(self, record: RoundRecord, head: Head, where: str) -> None:
        """Generation, rule, quorum, late and rejected organisations, and an empty round's aggregate."""
        expect, quorum = self.findings.expect, self.genesis.participation.quorum
        expect(What.GENERATION, where, record.generation, head.generation)
        expect(What.RULE, where, record.rule, self.genesis.rule)
        if record.admitted and len(record.admitted) < quorum:
            self.findings.fail(What.QUORUM, where, f"{len(record.admitted)} admitted", f"at least {quorum}")
        self.check_compared(record, head, where)
        self.check_late(record, where)
        for rejection in record.rejected:
            if rejection.organisation not in head.members:
                name = self.name(rejection.organisation)
                self.findings.fail(What.REJECTED, where, name, f"a member of lane {record.lane}")
        if not record.admitted:
            expect(What.RESIDUAL, where, record.residual, 0.0)
            if head.aggregate is not None:
                expect(What.AGGREGATE, where, record.aggregate, head.aggregate)

    def check_late(self, record: RoundRecord, where: str) -> None:
        """Who was late stands in order of address, once, and only where the round was closed without them."""
        late, closed = sorted(set(record.late), key=by_address), bool(record.admitted) and not record.reaggregated
        if list(record.late) != (late if closed else []):
            names = [", ".join(map(self.name, addresses)) for addresses in (record.late, late if closed else ())]
            self.findings.fail(What.LATE, where, *names)
        if record.grace and not record.late:
            self.findings.fail(What.LATE, where, f"{record.grace:g} seconds of grace", "0, as nobody was late")

    def check_compared(self, record: RoundRecord, head: Head, where: str) -> None:
        """Loss and best round stand where rounds are compared, and follow; no round is trained after an early end."""
        compared = self.genesis.compares_rounds and bool(record.admitted)
        states = "a validation loss", "none"
        self.findings.expect(What.LOSS, where, states[record.validation_loss is None], states[not compared])
        if head.parent is not None:  # else it is unknown which round was the best before
            self.findings.expect(What.BEST, where, record.best, best_of(record, head.best))
            if stops(self.genesis, head.round, head.best) and not record.reaggregated:
                self.findings.fail(What.ROUNDS, where, f"round {record.round}", f"an early end with round {head.round}")

    def check_admitted(self, record: RoundRecord, head: Head, where: str) -> dict[Address, float]:
        """Check the admitted organisations and their manifests; returns the weights that they must have."""
        order = [admitted.organisation for admitted in record.admitted]
        ascending = sorted(set(order), key=by_address)
        if order != ascending:
            names = [", ".join(map(self.name, addresses)) for addresses in (order, ascending)]
            self.findings.fail(What.ORDER, where, *names)
        # A manifest of another round that may not count here is a finding of its own, and no lower weight.
        allowed = range(self.genesis.staleness + 1)
        delays = {a: d if d in allowed else 0 for a, d in record.delays.items() if a in self.members}
        expected = self.genesis.weights(delays)
        for admitted in record.admitted:
            own = f"{where}, {self.name(admitted.organisation)}"
            self.findings.expect(What.WEIGHT, own, admitted.weight, expected.get(admitted.organisation, 0.0))
            self.check_manifest(admitted, record, head, own)
        return expected

    def check_reaggregated(
        self, record: RoundRecord, erased: Set[Address], line: Iterable[RoundRecord], where: str
    ) -> None:
        """A re-aggregated round admits the updates that its line admitted before, but for those of the erased.

        `line` is that of the generation before. Who has left taught what it taught.
        """
        before = next((r.admitted for r in line if r.round == record.round), ())
        got = [admitted.signed for admitted in record.admitted]
        want = [admitted.signed for admitted in before if admitted.organisation not in erased]
        seconds = [a.seconds for a in before if a.organisation not in erased]
        if got != want or [admitted.seconds for admitted in record.admitted] != seconds:
            lists = (
                [f"{self.name(m.organisation)} {m.digest}" for m in (s.value for s in all_)] for all_ in (got, want)
            )
            self.findings.fail(What.REAGGREGATED, where, *map(", ".join, lists))
        if record.rejected:
            self.findings.fail(What.REJECTED, where, self.name(record.rejected[0].organisation), "nobody was asked")

    def check_manifest(self, admitted: Admitted, record: RoundRecord, head: Head, where: str) -> None:
        """Everything that an organisation vouches for, and that it may vouch for it."""
        expect, manifest = self.findings.expect, admitted.signed.value
        with self.findings.guard(What.MANIFEST_SIGNATURE, where, f"a signature of {manifest.organisation}"):
            admitted.signed.signed_by(self.genesis.chain, self.genesis.signing(manifest.organisation, manifest.place))
        expect(What.MANIFEST_GENESIS, where, manifest.genesis, self.digest)
        if manifest.organisation not in self.members:
            self.findings.fail(What.MEMBER, where, manifest.organisation, "an organisation of the genesis")
        else:
            lanes = self.genesis.lanes_of(manifest.organisation)
            if record.lane not in lanes:
                self.findings.fail(What.LANE, where, record.lane, " or ".join(map(str, lanes)))
            if not record.reaggregated and manifest.organisation not in head.members:
                want = f"a member of generation {record.generation}"
                self.findings.fail(What.MEMBER, where, manifest.organisation, want)
        expect(What.WIRE, where, manifest.wire, self.genesis.wire)
        self.findings.checked["manifests"] += 1
        if record.reaggregated:
            return  # it was checked in the round that it was made for
        place = manifest.lane, manifest.generation, manifest.round
        number, parent = record.round, head.parent or record.parent
        if self.counts_late(manifest, record, head):
            number, parent = manifest.round, head.before or manifest.parent
            self.findings.checked["late updates"] += 1
        expect(What.MANIFEST_PLACE, where, place, (record.lane, record.generation, number))
        expect(What.MANIFEST_PARENT, where, manifest.parent, parent)
        self._check_claims(manifest, where)

    def counts_late(self, manifest: UpdateManifest, record: RoundRecord, head: Head) -> bool:
        """Whether an update of an earlier round counts: the genesis allows it, and that round named it as late."""
        allowed = 0 < record.round - manifest.round <= self.genesis.staleness
        # Behind a record that cannot be read nobody knows who was late.
        return allowed and (head.parent is None or manifest.organisation in head.late)

    def _check_claims(self, manifest: UpdateManifest, where: str) -> None:
        """Nonce, examples, bid and ε."""
        seen = self.nonces.setdefault(manifest.nonce, where)
        if seen is not where:
            self.findings.fail(What.NONCE, where, f"{manifest.nonce} of {seen}", "a nonce that was never used")
        registered = self.members[manifest.organisation].examples if manifest.organisation in self.members else 0
        if manifest.examples > registered:
            self.findings.fail(What.EXAMPLES, where, manifest.examples, f"at most the {registered} registered")
        bid, steps, rank = manifest.bid, self.genesis.training.local_steps, self.genesis.rank
        if not (1 <= bid.steps <= steps and 1 <= bid.rank <= rank):
            got = f"{bid.steps} steps at rank {bid.rank}"
            self.findings.fail(What.BID, where, got, f"1 to {steps} steps and rank 1 to {rank}")
        elif manifest.organisation in self.members:
            if expected := self.claims.expected(manifest):
                self.findings.fail(What.EPSILON, where, manifest.epsilon, expected)
            self.claims.note(manifest)
