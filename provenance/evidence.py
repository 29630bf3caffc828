"""The evidence of a verdict: everything that shows whose updates made the contribution that it names.

A bundle is one file of canonical JSON that is checked without the run, the model or the network: the trace, the
genesis, the lane's signed RoundRecords up to what was served, and for every round that admitted the named organisation
a proof of participation (its signed manifest, its salt, its way to the round's Merkle root) and that root.

    {"genesis", "proofs": [{"proof": participation proof, "root": digest}], "records": [signed record], "trace"}

What it shows offline: the organisation signed these updates, the coordinator signed that it admitted them, with these
weights, on the way to the aggregate that the trace is about, and the updates are in these roots. A ledger shows that
the roots were committed, and when. That the scores are right, the updates themselves show: attribute again.

Records name every organisation of the lane and the digests of their manifests: a bundle is for those who may know.
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
    """A verdict and what stands behind it; `roots` are those that `proofs` lead to."""

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
        if (who := trace.response.verdict) is None:
            raise UsageError("the method abstained: there is no verdict to give evidence of")
        lanes = run.genesis.lanes_of(who)
        if trace.run != run.name or not lanes:
            raise UsageError(f"the trace is about run {trace.run} and names {who}, this is run {run.name}")
        records = tuple(signed for lane in lanes for signed in run.lineage(lane))
        admitted = [s.value for s in records if any(a.organisation == who for a in s.value.admitted)]
        proofs = tuple(ParticipationProof.of(r, run.salts(r), who, run.genesis.chain) for r in admitted)
        roots = tuple(run.commitment(record).updates_root for record in admitted)
        return cls(trace, run.genesis, records, proofs, roots)

    @property
    def digest(self) -> Digest:
        """SHA-256 under ``foedus/evidence/v1``."""
        return digest("evidence", self.to_bytes())

    def verified(self) -> Address:
        """The organisation that the verdict names, when everything behind it holds.

        Raises IntegrityError (ForgeryError for a signature) saying what does not hold.
        """
        who = self.trace.response.verdict
        member = None if who is None else self.genesis.organisation(who)
        if who is None or member is None or self.trace.run != self.genesis.run:
            raise IntegrityError(f"the trace of run {self.trace.run} names {who}, no member of run {self.genesis.run}")
        scores = self.trace.response.scores
        best = self.trace.organisations[scores.index(max(scores))]
        if best != who:
            raise IntegrityError(f"the verdict is {who}, the highest score is {best}'s")
        records = self._lineage(who)
        self._check_proofs(who, records)
        return who

    def anchored(self, ledger: Ledger) -> tuple[Anchor, ...]:
        """Where each proved round stands on a ledger; raises as `ParticipationProof.check` does."""
        return tuple(proof.check(ledger) for proof in self.proofs)

    def _lineage(self, who: Address) -> list[RoundRecord]:
        """The records, each signed and the child of the one before, ending with what was served."""
        records = [signed.verified(self.genesis) for signed in self.records]
        heads = dict.fromkeys(self.genesis.lanes_of(who), self.genesis.digest)
        for record in records:
            if record.parent != (parent := heads.get(record.lane)):
                raise IntegrityError(f"round {record.round} names parent {record.parent}, {parent} wanted")
            heads[record.lane] = record.digest
        if not records:
            raise IntegrityError("the evidence has no records")
        if len(self.genesis.lanes) == 1 and records[-1].aggregate != self.trace.aggregate:
            raise IntegrityError(
                f"the records end with {records[-1].aggregate}, the trace is about {self.trace.aggregate}"
            )
        return records

    def _check_proofs(self, who: Address, records: list[RoundRecord]) -> None:
        """Every admitted update of the organisation has a proof, and no proof is of anything else."""
        wanted = [a.signed.value.digest for r in records for a in r.admitted if a.organisation == who]
        if not wanted or wanted != [proof.signed.value.digest for proof in self.proofs]:
            raise IntegrityError(
                f"{len(wanted)} updates of {who} were admitted, the proofs are of {len(self.proofs)} others"
            )
        if len(self.roots) != len(self.proofs):
            raise IntegrityError(f"{len(self.proofs)} proofs and {len(self.roots)} roots")
        for proof, root in zip(self.proofs, self.roots, strict=True):
            manifest = proof.signed.verified(self.genesis)
            found = merkle.process(merkle.leaf(raw(proof.manifest_commitment)), proof.path)
            if found != raw(root):
                raise IntegrityError(f"round {manifest.round}: the proof leads to 0x{found.hex()}, the root is {root}")

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
            raise FormatError("malformed evidence: genesis, proofs, records and trace wanted")
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
