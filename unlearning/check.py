"""The check of an erasure certificate, for a third party that trusts neither coordinator nor requester.

It needs the certificate, the run's artifacts with a reader's key, and the chain; no model and no data:

    signatures    of the requester on its request, of the coordinator on attestation and certificate
    chain         knows the erasure, by this attestation and this certificate
    run           holds as a whole (chain/audit/run.py): what is left is recomputed, what is attested is unreadable
    scope         the list of destroyed states has every state that reveals the erased, computed from the records, and
                  no other
    lanes         each lane that must forget has a certificate
    lineage       the label is the one that follows from the ancestors of the served state
    roots         before and after, heads and digest of the served state are those of the records
    privacy       ε spent by each organisation is that of its manifests
    receipts      each of a holder, for this erasure; holders without one are listed, and nobody twice

A certificate stays true of its own time after later erasures; the newest one describes the state that is served now.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from chain.audit.private import PrivateSource
from chain.audit.run import Failure, verify
from core.canonical import ZERO_DIGEST, Address, Digest
from core.composition import compose
from core.erasures import Attestation
from core.errors import FoedusError, IntegrityError
from core.ledger import Ledger
from core.privacy import claimed
from core.rounds import RoundRecord
from core.signed import Signed
from core.storage.run_folder import RunFolder
from unlearning.certificate import ErasureCertificate, Root
from unlearning.lineage import Lineage
from unlearning.plan import METHODS, kept_rounds


def check(
    signed: Signed[ErasureCertificate], run: RunFolder, ledger: Ledger, private: PrivateSource | None = None
) -> tuple[Failure, ...]:
    """The failures of a certificate, the first bad item first; none when everything holds.

    `private` is the members' chain, for its readers. Raises LedgerUnreachableError when the chain does not answer.
    """
    try:
        certificate = signed.verified(run.genesis)
        lineage = Lineage.of(run.genesis, run.records())
    except FoedusError as error:
        return (Failure("signature", "certificate", str(error), "signatures of requester and coordinator"),)
    parts = CertificateCheck(run, ledger, certificate, certificate.attestation.value, lineage)
    return (*parts.failures(), *verify(run, ledger, private=private, strict=True).failures)


@dataclass(frozen=True)
class CertificateCheck:
    """The parts of the check, one method each: it yields the failures that it finds."""

    run: RunFolder
    ledger: Ledger
    certificate: ErasureCertificate
    attestation: Attestation
    lineage: Lineage

    def failures(self) -> list[Failure]:
        """The failures of all parts; a part that cannot be read fails."""
        parts: tuple[Callable[[], Iterator[Failure]], ...] = (
            self.chain,
            self.attested,
            self.method,
            self.members,
            self.lanes,
            self.scope,
            self.label,
            self.roots,
            self.served,
            self.origin,
            self.privacy,
            self.receipts,
        )
        failures: list[Failure] = []
        for part in parts:
            try:
                failures.extend(part())
            except (IntegrityError, KeyError, IndexError) as error:
                failures.append(Failure(part.__name__, "certificate", str(error), "a match with the run's records"))
        return failures

    def chain(self) -> Iterator[Failure]:
        """The chain has this attestation from before the erasure, and this certificate from after it."""
        yield from _unequal("chain, contract", self.ledger.domain.contract, self.run.genesis.chain.contract)
        anchored = self.ledger.erasure(self.run.genesis.digest, self.attestation.erasure)
        if anchored is None:
            yield Failure("chain", "erasure", "nothing", f"erasure {self.attestation.erasure} on the chain")
            return
        yield from _unequal("chain, lane", anchored.lane, self.attestation.lane)
        yield from _unequal("chain, generation", anchored.generation, self.attestation.generation)
        attestation = self.attestation.hide(self.attestation.digest)
        yield from _unequal("chain, attestation", anchored.attestation, attestation)
        yield from _unequal("chain, certificate", anchored.certificate, self.certificate.committed)

    def attested(self) -> Iterator[Failure]:
        """The run's own attestation is the one in the certificate."""
        if self.certificate.attestation not in self.run.erasures():
            yield Failure("attestation", "erasures/", "another or none", "the one of the certificate")

    def method(self) -> Iterator[Failure]:
        """The method went back as far as it must and no further, and re-aggregated no more rounds than it may."""
        attested = self.attestation
        members = self.run.members(attested.lane, attested.generation)
        last = root(self.run, attested.lane, attested.generation - 1).round if members else 0
        genesis, line = self.run.genesis, self._line(attested.generation - 1)
        alone = attested.whole and not METHODS[attested.method].reaggregates
        kept = kept_rounds(self.lineage, genesis, line, members, self._updates, alone=alone)
        # Going back further would train rounds again that nobody asked to be forgotten.
        yield from _unequal("method, parent round", attested.parent_round, kept[-1].round if kept else 0)
        reach = METHODS[attested.method].reach(genesis.training, attested.parent_round, last)
        yield from _unequal("method, last rounds", (attested.reaggregated, attested.rounds), reach)
        if attested.method == "shards":
            yield from _unequal("method, shards", len(self.run.genesis.lanes[attested.lane]), 1)
        for record in self._line(attested.generation):
            if record.generation == attested.generation and record.reaggregated != (record.round <= reach[0]):
                got = "re-aggregated" if record.reaggregated else "trained"
                yield Failure("method", f"round {record.round}", got, f"re-aggregated up to round {reach[0]}")

    def members(self) -> Iterator[Failure]:
        """No erased organisation learns any more; one that erased records only still does."""
        generation = self.run.generations(self.attestation.lane)[self.attestation.generation].value
        where = f"generation {generation.generation}"
        yield from _unequal("generation's erasure", generation.erasure, self.attestation.erasure)
        if left := sorted(set(generation.members) & set(self.attestation.erased)):
            yield Failure("members", where, left[0], "no erased organisation")
        if not self.attestation.whole and self.attestation.organisation not in generation.members:
            yield Failure("members", where, "no requester", f"{self.attestation.organisation}, which erased records")

    def lanes(self) -> Iterator[Failure]:
        """Every lane of the request has forgotten: a certificate speaks of its own alone."""
        request = self.attestation.request
        same = [a for a in (signed.value for signed in self.run.erasures()) if a.request == request]
        done = {attested.lane for attested in same if self.run.certificate(attested)}
        if missing := sorted(set(request.value.lanes) - done):
            yield Failure("lanes", "certificates/", f"none for lane {missing[0]}", "one for each lane of the request")

    def scope(self) -> Iterator[Failure]:
        """Everything that reveals the erased is listed: their blocks, and every state of the lane that knew them."""
        attested, updates = self.attestation, self._updates
        # States are named by their content: one that is in line, or of another lane, under the same name is kept.
        kept = {state for record in self._line(attested.generation) for state in record.states}
        others = (signed.value for signed in self.run.records() if signed.value.lane != attested.lane)
        kept |= {state for record in others for state in record.states}
        known = set[Digest]()
        for record in self._knowing:
            manifests = (admitted.signed.value for admitted in record.admitted)
            revealing = {m.update for m in manifests if self.lineage.knows([m.digest], updates)} | {record.aggregate}
            known |= revealing | {record.digest}
            if missing := sorted(revealing - kept - set(attested.destroyed)):
                yield Failure("scope", f"round {record.round}", missing[0], "a state that was destroyed")
            if record.digest not in attested.salts_destroyed:
                yield Failure("scope", f"round {record.round}", "unlisted salts", "salts that were destroyed")
        # What is listed may be missing: nothing else may become so, unseen.
        if odd := sorted({*attested.destroyed, *attested.salts_destroyed} - known):
            yield Failure("scope", "attestation", odd[0], "states and salts that know the erased, and no others")

    def label(self) -> Iterator[Failure]:
        """The label is computed again."""
        line = self._served_line
        trained = bool(line) and line[-1].round > self.attestation.reaggregated
        private = self.run.genesis.privacy is not None
        label = self.lineage.label(self.certificate.heads, self._updates, trained=trained, private=private)
        yield from _unequal("label", self.certificate.label, label.value)

    def roots(self) -> Iterator[Failure]:
        """Before and after are the ends of the lane's generations."""
        lane, generation = self.attestation.lane, self.attestation.generation
        yield from _unequal("before", self.certificate.before, root(self.run, lane, generation - 1))
        yield from _unequal("after", self.certificate.after, root(self.run, lane, generation))

    def served(self) -> Iterator[Failure]:
        """Heads and digest are those of the served state, unless a later erasure has changed it."""
        if (line := self._served_line) and line[-1].digest not in self.certificate.heads:
            yield Failure("heads", "certificate", "without the lane's own", line[-1].digest)
        if self._superseded():
            return
        run, heads, states = self.run, [], []
        for lane in range(len(run.genesis.lanes)):
            if members := run.members(lane):
                served = run.served_line(lane)
                heads.append(served[-1].value.digest if served else run.genesis.digest)
                states.append((members, run.artifacts.open(served[-1].value.aggregate)))
        yield from _unequal("heads", self.certificate.heads, tuple(heads))
        yield from _unequal("aggregate", self.certificate.aggregate, compose(run.genesis, states).digest)

    def origin(self) -> Iterator[Failure]:
        """Seed and versions are those of the genesis."""
        yield from _unequal("seed", self.certificate.seed, self.run.genesis.seed)
        yield from _unequal("versions", dict(self.certificate.versions), dict(self.run.genesis.environment))

    def privacy(self) -> Iterator[Failure]:
        """What every organisation has spent of its privacy budget is what its newest manifest says."""
        spent = spent_in(self.run, self.attestation)
        yield from _unequal("privacy loss", dict(self.certificate.epsilon), spent)

    def receipts(self) -> Iterator[Failure]:
        """Every organisation that was sent a state that knew the erased is a holder, and is listed once.

        Either with its receipt for this erasure, or outstanding.
        """
        holders = self.attestation.holders
        if self._knowing:
            yield from _unequal("holders", holders, tuple(o.address for o in self.run.genesis.everyone))
        for receipt in self.certificate.receipts:
            if (got := receipt.verified(self.run.genesis, self.attestation.place).erasure) != self.attestation.erasure:
                yield Failure("receipts", receipt.value.organisation, got, self.attestation.erasure)
        given, outstanding = [r.value.organisation for r in self.certificate.receipts], self.certificate.outstanding
        for holder, count in sorted(Counter((*given, *outstanding)).items()):
            if holder not in holders:
                yield Failure("receipts", holder, "listed", "holders of what was erased only")
            elif count > 1:
                yield Failure("receipts", holder, f"listed {count} times", "a receipt, or outstanding")
        for holder in sorted(set(holders) - {*given, *outstanding}):
            yield Failure("receipts", holder, "not listed", "a receipt, or outstanding")

    def _line(self, generation: int) -> list[RoundRecord]:
        return [signed.value for signed in self.run.lineage(self.attestation.lane, generation)]

    @cached_property
    def _served_line(self) -> list[RoundRecord]:
        """The rounds behind what the lane's new generation serves."""
        return [s.value for s in self.run.served_line(self.attestation.lane, self.attestation.generation)]

    @cached_property
    def _updates(self) -> frozenset[Digest]:
        """The updates that must not be known any more."""
        return self.lineage.erased(self.attestation)

    @cached_property
    def _knowing(self) -> tuple[RoundRecord, ...]:
        """The lane's rounds before the erasure that know one of these updates."""
        lane, generation = self.attestation.lane, self.attestation.generation
        records = (signed.value for signed in self.run.records(lane))
        earlier = (record for record in records if record.generation < generation and record.admitted)
        return tuple(record for record in earlier if self.lineage.knows([record.digest], self._updates))

    def _superseded(self) -> bool:
        """Whether another request's erasure was attested later."""
        genesis = self.run.genesis.digest
        own = self.ledger.erasure(genesis, self.attestation.erasure)
        attested = (signed.value for signed in self.run.erasures())
        # The lanes of one request are attested one after the other: none of them supersedes another.
        others = [a for a in attested if a.request != self.attestation.request]
        later = (self.ledger.erasure(genesis, other.erasure) for other in others)
        return own is not None and any(other and other.attested_at > own.attested_at for other in later)


def spent_in(run: RunFolder, attestation: Attestation) -> dict[Address, float]:
    """ε that the organisations of a lane have claimed up to the end of the generation that an erasure opened."""
    records = (signed.value for signed in run.records(attestation.lane))
    return claimed(record for record in records if record.generation <= attestation.generation)


def root(run: RunFolder, lane: int, generation: int) -> Root:
    """The newest record of a lane at the end of a generation, and the state after it."""
    line = run.lineage(lane, generation)
    if not line:
        return Root(lane, generation, 0, run.genesis.digest, ZERO_DIGEST)
    record = line[-1].value
    return Root(lane, generation, record.round, record.digest, record.aggregate)


def _unequal(what: str, got: object, expected: object) -> Iterator[Failure]:
    """A failure unless the values are the same."""
    if got != expected:
        yield Failure(what, "certificate", str(got), str(expected))
