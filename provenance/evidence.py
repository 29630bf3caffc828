"""The evidence of a verdict: the signed updates and records behind the contribution that it names.

A bundle is one file of canonical JSON that is checked without the run, the model or the network: the trace, the
genesis, the lane's signed RoundRecords up to the served state, and for every round that admitted the named organisation
a proof of participation (its signed manifest, its salt, its way to the round's Merkle root) and that root.

    {"genesis", "proofs": [{"proof": participation proof, "root": digest}], "records": [signed record], "trace"}

Offline it shows that the organisation signed these updates, that the coordinator signed that it admitted them, with
these weights, on the way to the aggregate of the trace, and that the updates are in these roots. A ledger shows that
the roots were committed, and when. The scores themselves are checked by attributing again.

Records name every organisation of the lane and the digests of their manifests: hand a bundle only to those entitled.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from chain.participation import ParticipationProof
from core import merkle
from core.canonical import Address, Digest, digest, from_json, raw, to_json
from core.errors import FormatError, IntegrityError, UsageError
from core.genesis import Genesis
from core.ledger import Anchor, Ledger
from core.rounds import RoundRecord
from core.signed import Signed
from core.storage.run_folder import RunFolder
from provenance.trace import TokenTrace


@dataclass(frozen=True)
class Evidence:
    """A verdict with its evidence; `roots` are those that `proofs` lead to."""

    trace: TokenTrace
    genesis: Genesis
    records: tuple[Signed[RoundRecord], ...]
    proofs: tuple[ParticipationProof, ...]
    roots: tuple[Digest, ...]

    @classmethod
    def of(cls, run: RunFolder, trace: TokenTrace) -> Self:
        """Gather the evidence of a trace's verdict from the run.

        Raises UsageError when the trace has no verdict or is about another run, IntegrityError when a salt is gone.
        """
        if (named := trace.response.verdict) is None:
            raise UsageError("the method abstained: there is no verdict to give evidence of")
        lanes = run.genesis.lanes_of(named)
        if trace.run != run.name or not lanes:
            raise UsageError(
                f"expected a trace of run {run.name} that names a member of it, got run {trace.run} and {named}"
            )
        records = tuple(signed for lane in lanes for signed in run.lineage(lane))
        admitted = [s.value for s in records if any(a.organisation == named for a in s.value.admitted)]
        proofs = tuple(ParticipationProof.of(r, run.salts(r), named, run.genesis.chain) for r in admitted)
        roots = tuple(run.commitment(record).updates_root for record in admitted)
        return cls(trace, run.genesis, records, proofs, roots)

    @property
    def digest(self) -> Digest:
        """SHA-256 under ``foedus/evidence/v1``."""
        return digest("evidence", self.to_bytes())

    def verified(self) -> Address:
        """The organisation that the verdict names, when all its evidence holds.

        Raises IntegrityError, or ForgeryError for a signature, naming the first item that does not hold.
        """
        named = self.trace.response.verdict
        member = None if named is None else self.genesis.organisation(named)
        if named is None or member is None or self.trace.run != self.genesis.run:
            raise IntegrityError(
                f"expected a verdict on a member of run {self.genesis.run}, got {named} of run {self.trace.run}"
            )
        scores = self.trace.response.scores
        best = self.trace.organisations[scores.index(max(scores))]
        if best != named:
            raise IntegrityError(f"expected the verdict on {best}, which has the highest score, got {named}")
        self._check_proofs(named, self._lineage(named))
        return named

    def anchored(self, ledger: Ledger) -> tuple[Anchor, ...]:
        """The anchor of each proved round on a ledger; raises as `ParticipationProof.check` does."""
        return tuple(proof.check(ledger) for proof in self.proofs)

    def _lineage(self, organisation: Address) -> list[RoundRecord]:
        """The records, each signed and the child of the one before, ending with the served state."""
        records = [signed.verified(self.genesis) for signed in self.records]
        heads = dict.fromkeys(self.genesis.lanes_of(organisation), self.genesis.digest)
        for record in records:
            if record.parent != (parent := heads.get(record.lane)):
                raise IntegrityError(f"round {record.round}: expected parent {parent}, got {record.parent}")
            heads[record.lane] = record.digest
        if not records:
            raise IntegrityError("the evidence has no records")
        # Of several lanes the composition is served: its digest is none of the records'.
        if len(self.genesis.lanes) == 1 and records[-1].aggregate != self.trace.aggregate:
            raise IntegrityError(
                f"expected records that end with {self.trace.aggregate}, as the trace, got {records[-1].aggregate}"
            )
        return records

    def _check_proofs(self, organisation: Address, records: list[RoundRecord]) -> None:
        """Every admitted update of the organisation has a proof, and no proof is of anything else."""
        admitted = [a.signed.value.digest for r in records for a in r.admitted if a.organisation == organisation]
        if not admitted or admitted != [proof.signed.value.digest for proof in self.proofs]:
            raise IntegrityError(
                f"expected proofs of the {len(admitted)} admitted updates of {organisation}, "
                f"got {len(self.proofs)} proofs of others"
            )
        if len(self.roots) != len(self.proofs):
            raise IntegrityError(f"expected a root for each of {len(self.proofs)} proofs, got {len(self.roots)} roots")
        for proof, root in zip(self.proofs, self.roots, strict=True):
            manifest = proof.signed.verified(self.genesis)
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
                "genesis": self.genesis.to_dict(),
                "proofs": [{"proof": from_json(proof.to_json()), "root": root} for proof, root in pairs],
                "records": [signed.to_dict() for signed in self.records],
                "trace": from_json(self.trace.to_bytes()),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Parse a file; raises FormatError."""
        fields: Any = from_json(data)
        if not isinstance(fields, Mapping) or set(fields) != {"genesis", "proofs", "records", "trace"}:
            raise FormatError("malformed evidence: expected genesis, proofs, records and trace")
        try:
            proofs = tuple(ParticipationProof.from_json(to_json(p["proof"])) for p in fields["proofs"])
            roots = tuple(Digest(p["root"]) for p in fields["proofs"])
            for root in roots:
                raw(root)
            records = tuple(Signed.parse(RoundRecord, record) for record in fields["records"])
            genesis, trace = Genesis.from_dict(fields["genesis"]), TokenTrace.from_plain(fields["trace"])
        except (AttributeError, KeyError, TypeError) as error:
            raise FormatError(f"malformed evidence: {error}") from error
        return cls(trace, genesis, records, proofs, roots)
