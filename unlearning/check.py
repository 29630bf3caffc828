"""The check of an erasure certificate by whoever trusts neither coordinator nor requester.

It needs the certificate, the run's artifacts with a reader's key, and the chain; no model and no data:

    signatures    of coordinator and requester, on request, attestation and certificate
    chain         knows the erasure, by this attestation and this certificate
    run           holds as a whole (chain/audit/run.py): what is left is recomputed, what is attested is unreadable
    scope         everything that reveals the erased is on the list of what was destroyed, computed from the records
    lineage       the label is the one that follows from the ancestors of what is served
    roots         before and after, heads and digest of what is served are those of the records
    receipts      each of a holder, for this erasure; whoever gave none is listed, and nobody twice

A certificate after which others were erased still says what was done then; what is served now, the newest one says.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from chain.audit.private import PrivateSource
from chain.audit.run import Failure, verify
from core.canonical import ZERO_DIGEST, Digest
from core.composition import Composition, compose
from core.erasures import Attestation
from core.errors import FoedusError, IntegrityError
from core.ledger import Ledger
from core.rounds import RoundRecord
from core.signed import Signed
from core.storage.run_folder import RunFolder
from unlearning.certificate import ErasureCertificate, Root
from unlearning.lineage import Lineage
from unlearning.plan import METHODS


def check(
    signed: Signed[ErasureCertificate], run: RunFolder, ledger: Ledger, private: PrivateSource | None = None
) -> tuple[Failure, ...]:
    """What does not hold, the first bad item first; nothing when everything does.

    `private` is the members' chain, for who may read it. Raises LedgerUnreachableError when the chain does not answer.
    """
    try:
        certificate = signed.verified(run.genesis)
        lineage = Lineage.of(run.genesis, run.records())
    except FoedusError as error:
        return (Failure("signature", "certificate", str(error), "signatures of those who are named"),)
    checked = _Check(run, ledger, certificate, certificate.attestation.value, lineage)
    return (*checked.failures(), *verify(run, ledger, private=private, strict=True).failures)


@dataclass(frozen=True)
class _Check:
    run: RunFolder
    ledger: Ledger
    certificate: ErasureCertificate
    attestation: Attestation
    lineage: Lineage

    def failures(self) -> list[Failure]:
        """Every part that does not hold; a part that cannot be read does not."""
        parts: tuple[Callable[[], Iterator[Failure]], ...] = (
            self._chain,
            self._attested,
            self._method,
            self._members,
            self._scope,
            self._label,
            self._roots,
            self._served,
            self._origin,
            self._receipts,
        )
        found: list[Failure] = []
        for part in parts:
            try:
                found.extend(part())
            except (IntegrityError, KeyError, IndexError) as error:
                found.append(Failure(part.__name__.strip("_"), "certificate", str(error), "what the run's records say"))
        return found

    def _chain(self) -> Iterator[Failure]:
        """The chain was told of this attestation before, and of this certificate after."""
        yield from _same("chain, contract", self.ledger.contract, self.run.genesis.chain.contract)
        found = self.ledger.erasure(self.run.genesis.digest, self.attestation.erasure)
        if found is None:
            yield Failure("chain", "erasure", "nothing", f"erasure {self.attestation.erasure} on the chain")
            return
        yield from _same("chain, lane", found.lane, self.attestation.lane)
        yield from _same("chain, generation", found.generation, self.attestation.generation)
        yield from _same("chain, attestation", found.attestation, self.attestation.hide(self.attestation.digest))
        yield from _same("chain, certificate", found.certificate, self.certificate.committed)

    def _attested(self) -> Iterator[Failure]:
        """The run's own attestation is the one in the certificate."""
        if self.certificate.attestation not in self.run.erasures():
            yield Failure("attestation", "erasures/", "another or none", "the one of the certificate")

    def _method(self) -> Iterator[Failure]:
        """The method went as far back as it says, and carried over what it may."""
        attested = self.attestation
        left = self.run.members(attested.lane, attested.generation)
        last = root(self.run, attested.lane, attested.generation - 1).round if left else 0
        wanted = METHODS[attested.method].reach(self.run.genesis.training, attested.parent_round, last)
        yield from _same("method, rounds carried over and in all", (attested.reaggregated, attested.rounds), wanted)
        carried = wanted[0]
        if attested.method == "shards":
            yield from _same("method, shards", len(self.run.genesis.lanes[attested.lane]), 1)
        for signed in self.run.lineage(attested.lane, attested.generation):
            record = signed.value
            if record.generation == attested.generation and record.reaggregated != (record.round <= carried):
                yield Failure(
                    "method", f"round {record.round}", f"carried: {record.reaggregated}", f"up to round {carried}"
                )

    def _members(self) -> Iterator[Failure]:
        """None of the erased learns any more; whoever erased records only still does."""
        generation = self.run.generations(self.attestation.lane)[self.attestation.generation].value
        yield from _same("generation's erasure", generation.erasure, self.attestation.erasure)
        if left := sorted(set(generation.members) & set(self.attestation.erased)):
            yield Failure("members", f"generation {generation.generation}", left[0], "nobody who was erased")
        if not self.attestation.whole and self.attestation.organisation not in generation.members:
            yield Failure("members", f"generation {generation.generation}", "without who erased records", "who asked")

    def _scope(self) -> Iterator[Failure]:
        """Whatever reveals the erased is listed: their blocks, and every state of the lane that knew them.

        What has the same content as a state that is in line, or of another lane, was not destroyed.
        """
        attested, updates = self.attestation, self._erased
        kept = {s for r in self._line(attested.generation) for s in r.states}
        kept |= {s for signed in self.run.records() if signed.value.lane != attested.lane for s in signed.value.states}
        for record in self._before():
            if not self._knows(record):
                continue
            revealing = {record.aggregate}
            revealing |= {
                a.signed.value.update for a in record.admitted if self.lineage.knows([a.signed.value.digest], updates)
            }
            if missing := sorted(revealing - kept - set(attested.destroyed)):
                yield Failure("scope", f"round {record.round}", missing[0], "a state that was destroyed")
            if record.digest not in attested.salts_destroyed:
                yield Failure(
                    "scope", f"round {record.round}", "salts that are not listed", "salts that were destroyed"
                )

    def _label(self) -> Iterator[Failure]:
        """The label is computed again."""
        heads = self.certificate.heads
        trained = self.attestation.reaggregated < self.attestation.rounds
        label = self.lineage.label(heads, self._erased, trained=trained)
        yield from _same("label", self.certificate.label, label.value)

    def _roots(self) -> Iterator[Failure]:
        """Before and after are where the lane stood."""
        lane, generation = self.attestation.lane, self.attestation.generation
        yield from _same("before", self.certificate.before, root(self.run, lane, generation - 1))
        yield from _same("after", self.certificate.after, root(self.run, lane, generation))

    def _served(self) -> Iterator[Failure]:
        """Heads and digest are those of what is served, if nobody was erased since."""
        own = [self.certificate.after.record] if self._line(self.attestation.generation) else []
        if missing := [head for head in own if head not in self.certificate.heads]:
            yield Failure("heads", "certificate", "without the lane's own", missing[0])
        if self._superseded():
            return
        yield from _same("heads", self.certificate.heads, tuple(map(self._head, self._learning())))
        yield from _same("aggregate", self.certificate.aggregate, self._composed().digest)

    def _origin(self) -> Iterator[Failure]:
        """Seed and versions are those of the genesis."""
        yield from _same("seed", self.certificate.seed, self.run.genesis.seed)
        yield from _same("versions", dict(self.certificate.versions), dict(self.run.genesis.environment))

    def _receipts(self) -> Iterator[Failure]:
        """Whoever was sent a state that knew the erased is a holder, and stands once in one of two lists.

        Either with its receipt for this erasure, or outstanding.
        """
        holders = self.attestation.holders
        if any(self._knows(record) for record in self._before()):
            yield from _same("holders", holders, tuple(o.address for o in self.run.genesis.organisations))
        for receipt in self.certificate.receipts:
            if (got := receipt.verified(self.run.genesis).erasure) != self.attestation.erasure:
                yield Failure("receipts", receipt.value.organisation, got, self.attestation.erasure)
        given, outstanding = [r.value.organisation for r in self.certificate.receipts], self.certificate.outstanding
        for holder, count in sorted(Counter((*given, *outstanding)).items()):
            if holder not in holders:
                yield Failure("receipts", holder, "listed", "only who held what was erased")
            elif count > 1:
                yield Failure("receipts", holder, f"listed {count} times", "a receipt, or outstanding")
        for holder in sorted(set(holders) - {*given, *outstanding}):
            yield Failure("receipts", holder, "not listed", "a receipt, or outstanding")

    def _line(self, generation: int) -> list[RoundRecord]:
        return [signed.value for signed in self.run.lineage(self.attestation.lane, generation)]

    def _before(self) -> Iterator[RoundRecord]:
        """The lane's rounds before the erasure."""
        lane, generation = self.attestation.lane, self.attestation.generation
        for record in (signed.value for signed in self.run.records()):
            if record.lane == lane and record.generation < generation and record.admitted:
                yield record

    def _knows(self, record: RoundRecord) -> bool:
        return self.lineage.knows([record.digest], self._erased)

    @property
    def _erased(self) -> frozenset[Digest]:
        """The updates that the erasure is about."""
        return self.lineage.erased(self.attestation)

    def _learning(self) -> list[int]:
        """The lanes in which somebody learns."""
        return [lane for lane in range(len(self.run.genesis.lanes)) if self.run.members(lane)]

    def _superseded(self) -> bool:
        """Whether another erasure was attested later: one that was asked for by itself."""
        known = partial(self.ledger.erasure, self.run.genesis.digest)
        own = known(self.attestation.erasure)
        attested = (signed.value for signed in self.run.erasures())
        others = (known(other.erasure) for other in attested if other.request != self.attestation.request)
        return own is not None and any(other and other.attested_at > own.attested_at for other in others)

    def _head(self, lane: int) -> Digest:
        line = self.run.lineage(lane)
        return line[-1].value.digest if line else self.run.genesis.digest

    def _composed(self) -> Composition:
        """What is served."""
        run = self.run
        heads = {lane: run.lineage(lane)[-1].value.aggregate for lane in self._learning()}
        return compose(run.genesis, [(run.members(lane), run.artifacts.open(head)) for lane, head in heads.items()])


def root(run: RunFolder, lane: int, generation: int) -> Root:
    """Where a lane stood at the end of a generation."""
    line = run.lineage(lane, generation)
    if not line:
        return Root(lane, generation, 0, run.genesis.digest, ZERO_DIGEST)
    record = line[-1].value
    return Root(lane, generation, record.round, record.digest, record.aggregate)


def _same(what: str, got: object, wanted: object) -> Iterator[Failure]:
    if got != wanted:
        yield Failure(what, "certificate", str(got), str(wanted))
