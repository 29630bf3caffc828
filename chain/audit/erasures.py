"""Erasures: asked for by an organisation, attested by the coordinator, known to the ledger, and done.

One request is carried out once in a lane, and nobody is erased, or leaves the lane, who has not asked.
The states and salts that an attestation lists may be unreadable, and must be once there is a certificate; any other
that cannot be read was lost. No attestation excuses a missing state of the served lineage.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from chain.audit.files import ErasureFile, Files
from chain.audit.ledger import LedgerAudit
from chain.audit.report import Findings, What
from core.canonical import ZERO_DIGEST, Address, Digest, digest, from_json, to_json
from core.erasures import Attestation
from core.errors import FormatError
from core.generations import GenerationRecord
from core.genesis import Genesis
from core.signed import Signed


@dataclass
class ErasureAudit:
    """Every attestation, and the states and salts that the finished ones have destroyed."""

    genesis: Genesis
    files: Files
    findings: Findings
    attested: list[tuple[ErasureFile, Signed[Attestation]]]
    listed: frozenset[Digest]
    """States that may be unreadable."""
    destroyed: frozenset[Digest]
    """States that must be."""
    salts_listed: frozenset[Digest]
    """Records whose salts may be missing."""
    salts_destroyed: frozenset[Digest]
    """Records whose salts must be."""
    leaving: frozenset[Address]
    """The organisations that have asked, each for itself, to be erased as a whole."""
    _seen: set[Digest] = field(default_factory=set)

    @classmethod
    def read(cls, genesis: Genesis, files: Files, findings: Findings) -> Self:
        """The attestations; one that cannot be read, or lacks a signature, is a failure and lists nothing."""
        attested = []
        for file in files.erasures():
            want = "an attestation that the coordinator has signed, of a request that the organisation has"
            with findings.guard(What.ATTESTATION, file.name, want):
                signed = files.read_signed(file.name, Attestation)
                attestation = signed.verified(genesis)
                findings.expect(
                    What.FILE_NAME, file.name, (attestation.lane, attestation.generation), (file.lane, file.generation)
                )
                attested.append((file, signed))
        done = [signed.value for file, signed in attested if file.certificate in files]
        every = [signed.value for _, signed in attested]
        return cls(
            genesis, files, findings, attested,
            frozenset(d for a in every for d in a.destroyed), frozenset(d for a in done for d in a.destroyed),
            frozenset(d for a in every for d in a.salts_destroyed),
            frozenset(d for a in done for d in a.salts_destroyed),
            frozenset(a.organisation for a in every if a.whole),
        )  # fmt: skip

    def check(self, opened: Mapping[int, Mapping[int, Signed[GenerationRecord]]], ledger: LedgerAudit) -> None:
        """Each erasure opened its generation, and the ledger knows attestation and certificate.

        `opened` are the generations of each lane; there is none without an erasure or a change of members.
        """
        for file, signed in self.attested:
            self._check(signed.value, file, opened.get(file.lane, {}), ledger)
        asked = Counter((file.lane, signed.value.request.value.question) for file, signed in self.attested)
        for (lane, question), times in asked.items():
            if times > 1:
                got = f"what {question.organisation} asked, {times} times"
                self.findings.fail(What.ATTESTATION, f"erasures of lane {lane}", got, "each once")
        known = {(file.lane, file.generation) for file, _ in self.attested}
        by_erasure = {
            (lane, number)
            for lane, own in opened.items()
            for number, opening in own.items()
            if opening.value.membership == ZERO_DIGEST
        }
        for lane, generation in sorted(by_erasure - known):
            where = ErasureFile.of(lane, generation).name
            self.findings.fail(What.ATTESTATION, where, "none", f"one for generation {generation} of lane {lane}")

    def check_lanes(self, attestation: Attestation, where: str) -> None:
        """What was asked is done in all lanes that must forget: they are attested before any of them is opened."""
        request = attestation.request.value
        own = self.genesis.lanes_of(request.organisation)
        if (request.whole and request.lanes != own) or not set(own).issuperset(request.lanes):
            what = "all of them" if request.whole else "some of them"
            self.findings.fail(What.LANE, where, list(request.lanes), f"{what}: {list(own)}")
        same = {signed.value.lane for _, signed in self.attested if signed.value.request.value == request}
        if missing := sorted(set(request.lanes) - same):
            self.findings.fail(
                What.ATTESTATION, where, f"none for lane {missing[0]}", "one for each lane of the request"
            )

    def erased(self, lane: int, generation: int) -> frozenset[Address]:
        """Those without whom the rounds of a lane's generation were aggregated again."""
        attested = (
            signed.value for file, signed in self.attested if (file.lane, file.generation) == (lane, generation)
        )
        return frozenset(who for attestation in attested for who in attestation.erased)

    def last(self, lane: int) -> int:
        """The newest generation of a lane that was attested; a crash may leave it open on the ledger alone."""
        return max((file.generation for file, _ in self.attested if file.lane == lane), default=0)

    def excuses(self, name: Digest) -> bool:
        """Whether an erasure lists a state that cannot be read; each is counted once."""
        if name in self.listed and name not in self._seen:
            self._seen.add(name)
            self.findings.checked["destroyed states"] += 1
        return name in self.listed

    def _check(
        self,
        attestation: Attestation,
        file: ErasureFile,
        opened: Mapping[int, Signed[GenerationRecord]],
        ledger: LedgerAudit,
    ) -> None:
        self.findings.checked["attestations"] += 1
        where, certificate = file.name, self._certificate(attestation, file)
        opening = opened.get(attestation.generation)
        if opening is None and certificate:
            self.findings.fail(What.GENERATION, where, "nothing", f"generation {attestation.generation}, opened by it")
        if opening:
            self.check_lanes(attestation, where)
            record = opening.value
            self.findings.expect(What.GENERATION, where, _fork_of(attestation), _fork_of(record))
            if attestation.organisation not in self.genesis.ever_in(file.lane):
                self.findings.fail(What.MEMBER, where, attestation.organisation, f"a member of lane {file.lane}")
            before = opened.get(record.generation - 1)
            members = before.value.members if before else self.genesis.lanes[file.lane]
            staying = tuple(member for member in members if member not in attestation.erased)
            self.findings.expect(What.MEMBERS, where, record.members, staying)
            if odd := sorted(set(attestation.erased) - self.leaving):
                self.findings.fail(What.MEMBERS, where, f"{odd[0]} among the erased", "organisations that have asked")
        ledger.check_erasure(attestation, certificate, where)

    def _certificate(self, attestation: Attestation, file: ErasureFile) -> Digest | None:
        """The commitment to the erasure's certificate that the ledger must have; None while there is no certificate."""
        if file.certificate not in self.files:
            self.findings.checked["unfinished erasures"] += 1
            return None
        with self.findings.guard(What.CERTIFICATE, file.certificate, "canonical JSON of a certificate"):
            data = from_json(self.files.take(file.certificate).read_bytes())
            if not isinstance(data, dict) or "value" not in data:
                raise FormatError("expected a field 'value', got none")
            self.findings.checked["certificates"] += 1
            return attestation.hide(digest("certificate", to_json(data["value"])))
        return None


def _fork_of(noun: Attestation | GenerationRecord) -> tuple[Digest, int, int, int]:
    """The erasure, the parent round and the last round, on which attestation and generation must agree."""
    return noun.erasure, noun.parent_generation, noun.parent_round, noun.rounds
