"""The evidence of a verdict: the signed updates and records behind the contribution that it names.

A bundle is one file of canonical JSON that is checked without the run, the model or the network: the trace, the
genesis, the signed records of every served lane, what opened the lanes' generations, and for every round that admitted
the named organisation a proof of participation (its signed manifest, its salt, its way to the round's Merkle root) and
that root.

    {"calibration": signed Calibration or null, "genesis", "openings": [signed GenerationRecord],
     "proofs": [{"proof": participation proof, "root": digest}], "records": [signed RoundRecord], "trace"}

Offline it shows that verdict and confidence follow from the trace's scores, by the weights that the coordinator signed
for what is served, or by the constants where the trace says so; that the organisation signed these updates,
that the coordinator signed that it admitted them, with these weights, on the way to what the trace says is served, and
that the updates are in these roots. All of that anybody can make of keys of their own: whose federation it is, only a
genesis digest or a contract shows that the reader knows from elsewhere. A ledger shows that the roots were committed,
and when. The scores themselves are checked by attributing again.

Records name every organisation of the lanes and the digests of their manifests: hand a bundle only to those entitled.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from chain.participation import ParticipationProof, check_run
from core import merkle
from core.aggregation import by_address
from core.calibration import Calibration, verified_calibration
from core.canonical import Address, Digest, digest, from_json, raw, to_json
from core.composition import composition_digest, shares
from core.errors import FormatError, IntegrityError, UsageError
from core.generations import GenerationRecord, lineage
from core.genesis import Genesis
from core.ledger import Anchor, Ledger
from core.model_selection import check_best, served_line, served_round
from core.rounds import RoundRecord
from core.signed import Signed
from core.storage.run_folder import RunFolder
from provenance.confidence import WEIGHTS, Weights, judge_again, weights_of
from provenance.trace import TokenTrace

_ROUNDING = 1e-9
"""The largest difference between a confidence and the one that is computed again, perhaps on another machine."""
_FIELDS = {"calibration", "genesis", "openings", "proofs", "records", "trace"}

Lines = Mapping[int, list[RoundRecord]]
"""The rounds behind each served lane, in order."""


@dataclass(frozen=True)
class Evidence:
    """A verdict with its evidence; `roots` are those that `proofs` lead to, `calibration` is None for the constants."""

    trace: TokenTrace
    genesis: Genesis
    openings: tuple[Signed[GenerationRecord], ...]
    records: tuple[Signed[RoundRecord], ...]
    proofs: tuple[ParticipationProof, ...]
    roots: tuple[Digest, ...]
    calibration: Signed[Calibration] | None

    @classmethod
    def of(cls, run: RunFolder, trace: TokenTrace) -> Self:
        """Gather the evidence of a trace's verdict from the run.

        Raises UsageError when the trace has no verdict or is about another run, or about what the run served before,
        IntegrityError when a salt is gone.
        """
        genesis, named = run.genesis, trace.response.verdict
        if named is None:
            raise UsageError("the method abstained: there is no verdict to give evidence of")
        if trace.run != run.name or not genesis.lanes_of(named):
            raise UsageError(
                f"expected a trace of run {run.name} that names a member of it, got run {trace.run} and {named}"
            )
        lanes = range(len(genesis.lanes))
        openings = tuple(opening for lane in lanes for opening in run.generations(lane).values())
        signed_lines = {lane: run.lineage(lane) for lane in lanes if run.members(lane)}
        records = tuple(signed for line in signed_lines.values() for signed in line)
        lines = {lane: [signed.value for signed in line] for lane, line in signed_lines.items()}
        served = [record for line in lines.values() for record in served_line(genesis, line)]
        admitted = [record for record in served if any(a.organisation == named for a in record.admitted)]
        proofs = tuple(ParticipationProof.of(r, run.salts(r), named, genesis.header) for r in admitted)
        roots = tuple(run.commitment(record).updates_root for record in admitted)
        calibration = run.calibration if trace.response.calibrated else None
        made = cls(trace, genesis, openings, records, proofs, roots, calibration)
        try:
            made._check_served(lines)
            made._weights()
        except IntegrityError as error:
            raise UsageError(
                f"run {run.name} serves another state than this answer was traced with: ask again"
            ) from error
        return made

    @property
    def digest(self) -> Digest:
        """SHA-256 under ``foedus/evidence/v1``."""
        return digest("evidence", self.to_bytes())

    def verified(self) -> Address:
        """The organisation that the verdict names, when its evidence is consistent in itself.

        Raises IntegrityError, or ForgeryError for a signature, naming the first item that does not hold.
        """
        named = self._verdict()
        lines = self._lines()
        self._check_served(lines)
        lines = {lane: [*served_line(self.genesis, line)] for lane, line in lines.items()}
        self._check_scored(lines)
        self._check_proofs(named, [record for line in lines.values() for record in line])
        return named

    def anchored(self, ledger: Ledger) -> tuple[Anchor, ...]:
        """The anchor of each proved round on a ledger whose run is this genesis's; raises IntegrityError otherwise."""
        check_run(ledger, self.genesis.header)
        members = {organisation.address for organisation in self.genesis.organisations}
        if (got := ledger.members(self.genesis.digest)) != members:
            raise IntegrityError(f"expected the {len(members)} members of the genesis on the ledger, got {len(got)}")
        return tuple(proof.check(ledger, self.genesis) for proof in self.proofs)

    def _verdict(self) -> Address:
        """The verdict, computed again from the trace by the rule that made it."""
        trace, response = self.trace, self.trace.response
        if trace.method not in WEIGHTS:
            raise IntegrityError(f"expected a trace by one of {', '.join(WEIGHTS)}, got {trace.method!r}")
        if response.verdict not in self.genesis.contributors or trace.run != self.genesis.run:
            raise IntegrityError(
                f"expected a verdict on a member of run {self.genesis.run}, got {response.verdict} of run {trace.run}"
            )
        if not trace.tokens:
            raise IntegrityError("expected a trace of at least one token, got none")
        confidence, named = judge_again(self._weights(), trace)
        if named != response.verdict or not abs(confidence - response.confidence) <= _ROUNDING:
            raise IntegrityError(
                f"expected the verdict that follows from the scores, {named} at {confidence:.4f}, "
                f"got {response.verdict} at {response.confidence:.4f}"
            )
        return named

    def _weights(self) -> Weights:
        """The weights that made the verdict: the constants, or those that the coordinator signed for this state."""
        trace, signed = self.trace, self.calibration
        if trace.response.calibrated != (signed is not None):
            said = "calibrated" if trace.response.calibrated else "by the constants"
            raise IntegrityError(f"expected a calibration with calibrated verdicts alone, got a verdict {said}")
        if signed is None:
            return WEIGHTS[trace.method]
        calibration = verified_calibration(signed, self.genesis)
        if (calibration.aggregate, calibration.method) != (trace.aggregate, trace.method):
            raise IntegrityError(
                f"expected a calibration of {trace.method} for {trace.aggregate}, as the trace, "
                f"got one of {calibration.method} for {calibration.aggregate}"
            )
        return weights_of(calibration)

    def _members(self, lane: int) -> tuple[Address, ...]:
        """Who learns in a lane since the last of its openings."""
        opened = [signed.value.members for signed in self.openings if signed.value.lane == lane]
        return opened[-1] if opened else self.genesis.lanes[lane]

    def _lines(self) -> Lines:
        """The rounds behind every lane that has members: each signed, and the child of the one before."""
        for signed in self.records:
            signed.verified(self.genesis)
        openings = [signed.verified(self.genesis) for signed in self.openings]
        lines = {}
        for lane in range(len(self.genesis.lanes)):
            opened = {opening.generation: opening for opening in openings if opening.lane == lane}
            if not self._members(lane):
                continue
            own = [signed for signed in self.records if signed.value.lane == lane]
            line = [signed.value for signed in lineage(own, opened)]
            parent = self.genesis.digest
            for record in line:
                if record.parent != parent:
                    raise IntegrityError(f"round {record.round}: expected parent {parent}, got {record.parent}")
                parent = record.digest
            check_best(self.genesis, line)
            if len(line) != len(own) or list(opened) != list(range(1, len(opened) + 1)):
                raise IntegrityError(f"lane {lane}: expected one line of records through its generations, got others")
            lines[lane] = line
        if sum(map(len, lines.values())) != len(self.records) or not self.records:
            raise IntegrityError(f"expected the records of the served lanes, got {len(self.records)}")
        return lines

    def _check_served(self, lines: Lines) -> None:
        """The records end with the states of which the trace says that they are served."""
        weighed = shares(self.genesis, [self._members(lane) for lane in lines])
        if empty := [lane for lane, line in lines.items() if not line]:
            raise IntegrityError(f"lane {empty[0]}: expected records of what it serves, got none")
        states = [served_round(self.genesis, line[-1]).aggregate for line in lines.values()]
        served = composition_digest(self.genesis.composition, list(zip(weighed, states, strict=True)))
        if served != self.trace.aggregate:
            raise IntegrityError(f"expected records that end with {self.trace.aggregate}, as the trace, got {served}")

    def _check_scored(self, lines: Lines) -> None:
        """The trace scores every contributor: leaving one out would make the others look surer."""
        groups = [list(lines.values())]
        if self.genesis.composition == "routing":
            groups = [[line] for line in lines.values()]  # the lane that answers is scored alone
        last = slice(-1, None) if self.trace.method == "protoken" else slice(None)
        origin = self.genesis.origin
        begun = {origin.address} if origin and self.trace.method != "protoken" else set()
        expected = [_contributors([record for line in group for record in line[last]], begun) for group in groups]
        if self.trace.organisations not in expected:
            got = len(self.trace.organisations)
            raise IntegrityError(f"expected scores of all {len(expected[0])} contributors, got those of {got}")

    def _check_proofs(self, organisation: Address, records: list[RoundRecord]) -> None:
        """Every admitted update of the organisation has a proof, and no proof is of anything else."""
        admitted = [a.signed.value.digest for r in records for a in r.admitted if a.organisation == organisation]
        # What a run began with is in its genesis, and in no update.
        begun = self.genesis.origin is not None and organisation == self.genesis.origin.address
        if not (admitted or begun) or admitted != [proof.signed.value.digest for proof in self.proofs]:
            raise IntegrityError(
                f"expected proofs of the {len(admitted)} admitted updates of {organisation}, "
                f"got {len(self.proofs)} proofs of others"
            )
        if len(self.roots) != len(self.proofs):
            raise IntegrityError(f"expected a root for each of {len(self.proofs)} proofs, got {len(self.roots)} roots")
        for proof, root in zip(self.proofs, self.roots, strict=True):
            manifest = proof.signed.verified(self.genesis)
            if proof.federation != self.genesis.header:
                raise IntegrityError(f"round {manifest.round}: expected a proof of this federation, got another's")
            reached = merkle.process(merkle.leaf(raw(proof.manifest_commitment)), proof.path)
            if reached != raw(root):
                raise IntegrityError(
                    f"round {manifest.round}: expected a proof that leads to root {root}, got 0x{reached.hex()}"
                )

    def to_bytes(self) -> bytes:
        """The bundle as a file; ``Evidence.from_bytes(e.to_bytes()) == e``."""
        pairs = zip(self.proofs, self.roots, strict=True)
        return to_json(
            {
                "calibration": self.calibration.to_dict() if self.calibration else None,
                "genesis": self.genesis.to_message(),
                "openings": [signed.to_dict() for signed in self.openings],
                "proofs": [{"proof": from_json(proof.to_json()), "root": root} for proof, root in pairs],
                "records": [signed.to_dict() for signed in self.records],
                "trace": from_json(self.trace.to_bytes()),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Parse a file; raises FormatError."""
        fields: Any = from_json(data)
        if not isinstance(fields, Mapping) or set(fields) != _FIELDS:
            raise FormatError(f"malformed evidence: expected {', '.join(sorted(_FIELDS))}")
        try:
            if odd := [sorted(p) for p in fields["proofs"] if set(p) != {"proof", "root"}]:
                raise FormatError(f"malformed evidence: expected a proof and its root, got {odd[0]}")
            proofs = tuple(ParticipationProof.from_json(to_json(p["proof"])) for p in fields["proofs"])
            roots = tuple(Digest(p["root"]) for p in fields["proofs"])
            for root in roots:
                raw(root)
            records = tuple(Signed.parse(RoundRecord, record) for record in fields["records"])
            openings = tuple(Signed.parse(GenerationRecord, opening) for opening in fields["openings"])
            plain = fields["calibration"]
            calibration = None if plain is None else Signed.parse(Calibration, plain)
            genesis, trace = Genesis.from_message(fields["genesis"]), TokenTrace.from_plain(fields["trace"])
        except (AttributeError, KeyError, TypeError) as error:
            raise FormatError(f"malformed evidence: {error}") from error
        bundle = cls(trace, genesis, openings, records, proofs, roots, calibration)
        # Parsers take an empty text for an empty list: a bundle has one spelling, and so one digest.
        if bundle.to_bytes() != data:
            raise FormatError("malformed evidence: expected the fields as `foedus attribute` writes them, got others")
        return bundle


def _contributors(records: list[RoundRecord], begun: set[Address]) -> tuple[Address, ...]:
    return tuple(sorted(begun | {a.organisation for record in records for a in record.admitted}, key=by_address))
