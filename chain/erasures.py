"""Erasures and generations on the public ledger: attested, opened, certified, and read back."""

from web3.types import EventData

from chain.contract import BoundContract, to_digest
from core.canonical import ZERO_DIGEST, Digest, raw
from core.errors import LedgerConflictError, LedgerError
from core.ledger import Anchor, Erasure, GenerationOpening, LaneHead


class Erasures:
    """The part of core.ledger.Ledger that EthereumLedger delegates.

    Every method raises LedgerUnreachableError when the node does not answer.
    """

    def __init__(self, bound: BoundContract) -> None:
        """`bound`: the PublicLedger contract, as `EthereumLedger.bound` has it."""
        self._bound = bound

    def head(self, run: Digest, lane: int) -> LaneHead:
        """See `Ledger.head`."""
        purpose = f"the head of lane {lane}"
        generation, height, *_ = self._bound.call("getLane", raw(run), lane, purpose=purpose)
        aggregate = self._bound.call("getHead", raw(run), lane, purpose=purpose)
        return LaneHead(generation, height, to_digest(aggregate))

    def read(self, run: Digest, erasure: Digest) -> Erasure | None:
        """See `Ledger.erasure`."""
        attestation, certificate, lane, generation, attested_at = self._bound.call(
            "getErasure", raw(run), raw(erasure), purpose=f"erasure {erasure}"
        )
        if not attested_at:
            return None
        return Erasure(lane, to_digest(attestation), to_digest(certificate), generation, attested_at)

    def attest(self, run: Digest, erasure: Digest, lane: int, attestation: Digest) -> Anchor:
        """See `Ledger.attest`."""

        def attested() -> Anchor | None:
            known = self.read(run, erasure)
            if known is None:
                return None
            if (known.lane, known.attestation) != (lane, attestation):
                raise LedgerConflictError(
                    f"erasure {erasure} is already attested: expected {known}, got {attestation} for lane {lane}"
                )
            return self._bound.anchor(self._event("ErasureAttested", run, erasure, known.attested_at))

        return self._bound.execute(
            "attestErasure",
            raw(run),
            raw(erasure),
            lane,
            raw(attestation),
            effect=attested,
            purpose=f"attesting erasure {erasure}",
        )

    def open_generation(self, opening: GenerationOpening) -> Anchor:
        """See `Ledger.open_generation`."""

        def opened() -> Anchor | None:
            known = self.read(opening.run, opening.erasure)
            if known is None or not known.generation:
                return None
            event = self._event("GenerationOpened", opening.run, opening.erasure, known.attested_at)
            names = ("lane", "generation", "parentGeneration", "parentRound")
            got = tuple(event["args"][name] for name in names)
            if got != (opening.lane, opening.generation, opening.parent_generation, opening.parent_round):
                known_as = dict(zip(names, got, strict=True))
                raise LedgerConflictError(
                    f"erasure {opening.erasure} is already opened: expected {known_as}, got {opening}"
                )
            return self._bound.anchor(event)

        return self._bound.execute(
            "openGeneration",
            raw(opening.run),
            opening.lane,
            opening.generation,
            raw(opening.erasure),
            opening.parent_generation,
            opening.parent_round,
            effect=opened,
            purpose=f"opening generation {opening.generation} of lane {opening.lane}",
        )

    def certify(self, run: Digest, erasure: Digest, certificate: Digest) -> Anchor:
        """See `Ledger.certify`."""

        def certified() -> Anchor | None:
            known = self.read(run, erasure)
            if known is None or known.certificate == ZERO_DIGEST:
                return None
            if known.certificate != certificate:
                raise LedgerConflictError(
                    f"erasure {erasure} is already certified: expected {known.certificate}, got {certificate}"
                )
            return self._bound.anchor(self._event("ErasureCertified", run, erasure, known.attested_at))

        return self._bound.execute(
            "certifyErasure",
            raw(run),
            raw(erasure),
            raw(certificate),
            effect=certified,
            purpose=f"certifying erasure {erasure}",
        )

    def _event(self, name: str, run: Digest, erasure: Digest, since: int) -> EventData:
        """The one event `name` of an erasure, from block `since` on."""
        filters = {"run": raw(run), "erasure": raw(erasure)}
        events = self._bound.events(name, since, "latest", filters, purpose=f"erasure {erasure}")
        if len(events) != 1:
            raise LedgerError(f"erasure {erasure}: expected 1 event {name}, got {len(events)}")
        return events[0]
