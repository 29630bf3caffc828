"""Queries beside training: who is there, bids asked apart, deletion after an erasure, and erasing records."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from flwr.app import RecordDict

from core.canonical import Address, Digest, raw
from core.erasures import Attestation, ErasureRequest, Receipt
from core.errors import FormatError
from core.founding import Consent
from core.generations import GenerationRecord
from core.genesis import Genesis
from core.keys import Domain
from core.membership import Admission, Proposal
from core.messages.codec import (
    BOUND_BYTES,
    MANIFEST_BYTES,
    QUESTION_BYTES,
    RECORD_BYTES,
    REFUSAL_BYTES,
    json_of,
    json_record,
    payments_of,
    payments_to_json,
)
from core.messages.federation import attached, genesis_of
from core.parsing import parsed, typed
from core.signed import Signed
from core.update import Asked, Offer, Registration

BIND = "query.bind"
CHECK = "query.check"
REVEAL = "query.reveal"
CONSENT = "query.consent"
ADMISSION = "query.admission"
OFFER = "query.offer"
DELETE = "query.delete"
RECORDS = "query.records"


@dataclass(frozen=True)
class Bind:
    """The coordinator asks a node for the organisations it hosts: what to sign, for which chain and contract."""

    asked: Asked
    chain: Domain

    def to_content(self) -> RecordDict:
        """As a message's content."""
        return RecordDict({"bind": json_record(asdict(self))})

    @classmethod
    def from_content(cls, content: RecordDict) -> Self:
        """Parse a message's content; raises FormatError."""
        bind = json_of(content, "bind", QUESTION_BYTES, "asked", "chain")
        try:
            return cls(parsed(Asked, bind["asked"], {}), parsed(Domain, bind["chain"], {}))
        except (KeyError, TypeError) as error:
            raise FormatError(f"malformed bind query: {error}") from error


@dataclass(frozen=True)
class Bound:
    """A node's answer: the organisations it hosts, and how many it knows of (0 in a deployment)."""

    registrations: tuple[Signed[Registration], ...]
    known: int

    def to_content(self) -> RecordDict:
        """As a message's content."""
        bound = {"organisations": [r.to_dict() for r in self.registrations], "known": self.known}
        return RecordDict({"bound": json_record(bound)})

    @classmethod
    def from_content(cls, content: RecordDict, most: int = BOUND_BYTES) -> Self:
        """Parse a message's content, of at most so many bytes; raises FormatError."""
        bound = json_of(content, "bound", most, "organisations", "known")
        try:
            return typed(cls(tuple(Signed.parse(Registration, r) for r in bound["organisations"]), bound["known"]))
        except (KeyError, TypeError) as error:
            raise FormatError(f"malformed bind reply: {error}") from error


@dataclass(frozen=True)
class DryRunQuery:
    """The coordinator asks a node to try what a federation would ask of it, with a base of this digest."""

    asked: Asked
    chain: Domain
    base: Digest

    def to_content(self) -> RecordDict:
        """As a message's content."""
        return RecordDict({"check": json_record(asdict(self))})

    @classmethod
    def from_content(cls, content: RecordDict) -> Self:
        """Parse a message's content; raises FormatError."""
        nested = {"asked": lambda v: parsed(Asked, v, {}), "chain": lambda v: parsed(Domain, v, {})}
        return parsed(cls, json_of(content, "check", QUESTION_BYTES), nested)


@dataclass(frozen=True)
class DryRunAnswer:
    """What a node's dry run came to; nothing of it is signed.

    `registration` is the one that it would sign, None where it could not; `seconds` are those of one step, `memory` the
    most bytes that it took; `problems` say what failed, and are empty when nothing did.
    """

    registration: Registration | None
    seconds: float
    memory: int
    problems: tuple[str, ...]

    def to_content(self) -> RecordDict:
        """As a message's content."""
        plain = asdict(self) | {"problems": list(self.problems)}
        return RecordDict({"checked": json_record(plain)})

    @classmethod
    def from_content(cls, content: RecordDict) -> Self:
        """Parse a message's content; raises FormatError."""
        nested = {
            "registration": lambda v: None if v is None else Registration.from_dict(v),
            "problems": lambda v: tuple(str(problem) for problem in v),
        }
        return parsed(cls, json_of(content, "checked", MANIFEST_BYTES), nested)


@dataclass(frozen=True)
class RevealQuery:
    """The coordinator shows who is to found the federation, and asks one of them for its nonce."""

    organisation: Address
    registrations: tuple[Signed[Registration], ...]
    chain: Domain

    def to_content(self) -> RecordDict:
        """As a message's content."""
        registrations = [signed.to_dict() for signed in self.registrations]
        query = {"organisation": self.organisation, "registrations": registrations, "chain": asdict(self.chain)}
        return RecordDict({"reveal": json_record(query)})

    @classmethod
    def from_content(cls, content: RecordDict) -> Self:
        """Parse a message's content; raises FormatError."""
        query = json_of(content, "reveal", QUESTION_BYTES)
        nested = {
            "registrations": lambda v: tuple(Signed.parse(Registration, signed) for signed in v),
            "chain": lambda v: parsed(Domain, v, {}),
        }
        return parsed(cls, query, nested)


def revealed(nonce: Digest) -> RecordDict:
    """The content of the reply to a query for a nonce."""
    return RecordDict({"revealed": json_record({"nonce": nonce})})


def nonce_of(content: RecordDict) -> Digest:
    """The nonce in a reply; raises FormatError."""
    return Digest("0x" + raw(json_of(content, "revealed", REFUSAL_BYTES, "nonce")["nonce"]).hex())


@dataclass(frozen=True)
class ConsentQuery:
    """The coordinator asks a member to agree to the genesis that followed from what all have shown."""

    organisation: Address
    genesis: Genesis

    def to_content(self) -> RecordDict:
        """As a message's content."""
        query = {"organisation": self.organisation, "genesis": self.genesis.to_dict()}
        return RecordDict({"consent": json_record(query)})

    @classmethod
    def from_content(cls, content: RecordDict) -> Self:
        """Parse a message's content; raises FormatError."""
        return parsed(cls, json_of(content, "consent", QUESTION_BYTES), {"genesis": Genesis.from_dict})


def consented(signed: Signed[Consent]) -> RecordDict:
    """The content of a member's consent."""
    return RecordDict({"consented": json_record(signed.to_dict())})


def consent_of(content: RecordDict) -> Signed[Consent]:
    """The consent in a reply; raises FormatError."""
    return Signed.parse(Consent, json_of(content, "consented", MANIFEST_BYTES))


@dataclass(frozen=True)
class AdmissionQuery:
    """The coordinator asks a member, or a newcomer, to agree to newcomers.

    `openings` are what opened the lane's generations so far.
    """

    organisation: Address
    genesis: Genesis
    proposal: Proposal
    openings: tuple[Signed[GenerationRecord], ...]

    def to_content(self) -> RecordDict:
        """As a message's content."""
        query = {
            "organisation": self.organisation,
            "genesis": self.genesis.to_message(),
            "proposal": self.proposal.to_dict(),
            "openings": [opening.to_dict() for opening in self.openings],
        }
        return RecordDict({"admission": json_record(query)})

    @classmethod
    def from_content(cls, content: RecordDict) -> Self:
        """Parse a message's content; raises FormatError."""
        nested: dict[str, Any] = {
            "genesis": Genesis.from_message,
            "proposal": Proposal.from_dict,
            "openings": lambda v: tuple(Signed.parse(GenerationRecord, each) for each in v),
        }
        return parsed(cls, json_of(content, "admission", QUESTION_BYTES), nested)


def agreed(signed: Signed[Admission]) -> RecordDict:
    """The content of the reply to a query about newcomers."""
    return RecordDict({"agreed": json_record(signed.to_dict())})


def admission_of(content: RecordDict) -> Signed[Admission]:
    """The agreement in a reply; raises FormatError."""
    return Signed.parse(Admission, json_of(content, "agreed", MANIFEST_BYTES))


@dataclass(frozen=True)
class OfferQuery:
    """The server asks an organisation apart what it bids for a round, as it does whoever did not reply to the last.

    `paid` is what it was paid for earlier rounds, `traffic` the MiB that a round sends and receives.
    """

    genesis: Genesis
    organisation: Address
    lane: int
    generation: int
    round: int
    traffic: float
    paid: Mapping[int, float]

    def to_content(self, *, whole: bool = True) -> RecordDict:
        """As a message's content, with the whole genesis or, for a node that has it, without."""
        plain = {name: getattr(self, name) for name in ("organisation", "lane", "generation", "round", "traffic")}
        query = plain | {"genesis": self.genesis.shown_digest, "paid": payments_to_json(self.paid)}
        return RecordDict({"offer": json_record(query), **attached(self.genesis, whole=whole)})

    @classmethod
    def from_content(cls, content: RecordDict, kept: Path | None = None) -> Self:
        """Parse a message's content; `kept`: where geneses are kept. Raises FormatError, UnknownGenesisError."""
        names = ("organisation", "lane", "generation", "round", "traffic")
        query = json_of(content, "offer", QUESTION_BYTES, "genesis", "paid", *names)
        try:
            plain = {name: query[name] for name in names}
            genesis = genesis_of(content, query["genesis"], kept)
            return typed(cls(genesis=genesis, paid=payments_of(query["paid"]), **plain))
        except (KeyError, TypeError) as error:
            raise FormatError(f"malformed query for an offer: {error}") from error


def offered(signed: Signed[Offer]) -> RecordDict:
    """The content of the reply to a query for an offer."""
    return RecordDict({"offered": json_record(signed.to_dict())})


def offer_of(content: RecordDict) -> Signed[Offer]:
    """The offer in a reply; raises FormatError."""
    return Signed.parse(Offer, json_of(content, "offered", MANIFEST_BYTES))


@dataclass(frozen=True)
class Deletion:
    """The server asks an organisation to delete whatever it keeps that knew somebody who was erased."""

    genesis: Genesis
    organisation: Address
    attested: Signed[Attestation]

    def to_content(self) -> RecordDict:
        """As a message's content."""
        query = {"genesis": self.genesis.to_message(), "organisation": self.organisation}
        return RecordDict({"delete": json_record(query | {"attested": self.attested.to_dict()})})

    @classmethod
    def from_content(cls, content: RecordDict) -> Self:
        """Parse a message's content; raises FormatError."""
        query = json_of(content, "delete", QUESTION_BYTES, "genesis", "organisation", "attested")
        try:
            attested = Signed.parse(Attestation, query["attested"])
            return typed(cls(Genesis.from_message(query["genesis"]), query["organisation"], attested))
        except (KeyError, TypeError) as error:
            raise FormatError(f"malformed query to delete: {error}") from error


def deleted(receipt: Signed[Receipt]) -> RecordDict:
    """The content of the reply to a query to delete."""
    return RecordDict({"deleted": json_record(receipt.to_dict())})


def receipt_of(content: RecordDict) -> Signed[Receipt]:
    """The receipt in a reply; raises FormatError."""
    return Signed.parse(Receipt, json_of(content, "deleted", MANIFEST_BYTES))


@dataclass(frozen=True)
class RecordsQuery:
    """The server asks an organisation which of these records it holds; with `forget` it is to train without them.

    `request` is the organisation's own, about these records and no others.
    """

    genesis: Genesis
    request: Signed[ErasureRequest]
    records: tuple[Digest, ...]
    forget: bool

    def to_content(self) -> RecordDict:
        """As a message's content."""
        query = {
            "genesis": self.genesis.to_message(),
            "request": self.request.to_dict(),
            "records": list(self.records),
            "forget": self.forget,
        }
        return RecordDict({"records": json_record(query)})

    @classmethod
    def from_content(cls, content: RecordDict) -> Self:
        """Parse a message's content; raises FormatError."""
        query = json_of(content, "records", QUESTION_BYTES, "genesis", "request", "records", "forget")
        try:
            request, forget = Signed.parse(ErasureRequest, query["request"]), query["forget"] is True
            return cls(Genesis.from_message(query["genesis"]), request, _digests(query["records"]), forget)
        except (KeyError, TypeError) as error:
            raise FormatError(f"malformed query for records: {error}") from error


@dataclass(frozen=True)
class RecordsAnswer:
    """Which records an organisation trains on, and which it has forgotten; it knows none of the rest."""

    held: tuple[Digest, ...]
    forgotten: tuple[Digest, ...]

    def to_content(self) -> RecordDict:
        """As a reply's content."""
        answer = {"held": list(self.held), "forgotten": list(self.forgotten)}
        return RecordDict({"known": json_record(answer)})

    @classmethod
    def from_content(cls, content: RecordDict, asked: int) -> Self:
        """Parse a reply's content to a query for so many records; raises FormatError."""
        answer = json_of(content, "known", REFUSAL_BYTES + asked * RECORD_BYTES, "held", "forgotten")
        try:
            return cls(_digests(answer["held"]), _digests(answer["forgotten"]))
        except (KeyError, TypeError) as error:
            raise FormatError(f"malformed answer about records: {error}") from error


def _digests(values: Iterable[Digest]) -> tuple[Digest, ...]:
    found = tuple(values)
    for value in found:
        raw(value)
    return found
