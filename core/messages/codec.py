"""What travels in Flower's messages: the only reader and writer of record keys.

    message        content sent                         content of the reply
    query.bind     challenge                            registrations (signed), one per hosted organisation
    query.offer    whom, what for, what was paid        offer (signed); or refusal
    query.delete   attestation of an erasure (signed)   receipt (signed); or refusal
    query.records  request to erase records (signed)    which of them are held, which forgotten; or refusal
    train          task, state                          manifest, signature, update; or refusal
    evaluate       task, state                          losses; or refusal

Nouns travel as their canonical bytes, so that what was hashed is what was sent: an AdapterState is the data of one
array (of type "safetensors", which Flower carries and never parses), everything else canonical JSON. A message is
addressed to (node, organisation).
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Self

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from core.adapter import AdapterState
from core.canonical import Address, Digest, from_json, raw, to_json
from core.composition import Composition, Part
from core.erasures import Attestation, ErasureRequest, Receipt
from core.errors import FormatError
from core.generations import GenerationRecord
from core.genesis import Genesis
from core.keys import Domain, Signature
from core.parsing import parsed
from core.rounds import RoundRecord, Salts
from core.signed import Signed
from core.update import Asked, Offer, Registration, UpdateManifest

BIND = "query.bind"
OFFER = "query.offer"
DELETE = "query.delete"
RECORDS = "query.records"
TRAIN = "train"
EVALUATE = "evaluate"

_SAFETENSORS = "safetensors"


@dataclass(frozen=True)
class Task:
    """What an organisation is asked: to train a lane's state at a round, or to evaluate what is served.

    `parent` is the coordinator-signed record that vouches for the state, None before round 1; `salts` are its salts, by
    which an organisation finds it on the chain. `openings` are what opened the lane's generations, in order. `served`
    is the state to train, or everything that is served. `paid` is what the organisation was paid for earlier rounds, by
    round, where credit is measured.
    """

    genesis: Genesis
    organisation: Address
    lane: int
    generation: int
    round: int
    openings: tuple[Signed[GenerationRecord], ...]
    parent: Signed[RoundRecord] | None
    salts: Salts | None
    served: Composition
    paid: Mapping[int, float] = field(default_factory=dict)

    @property
    def state(self) -> AdapterState:
        """The one state that there is to train; raises FormatError when there are several."""
        if len(self.served.parts) != 1:
            raise FormatError(f"malformed task: {len(self.served.parts)} states to train, one wanted")
        return self.served.states[0]

    def to_content(self) -> RecordDict:
        """As a message's content."""
        task = {
            "organisation": self.organisation,
            "lane": self.lane,
            "generation": self.generation,
            "round": self.round,
            "genesis": self.genesis.to_dict(),
            "openings": [opening.to_dict() for opening in self.openings],
            "parent": self.parent.to_dict() if self.parent else None,
            "salts": self.salts.to_dict() if self.salts else None,
            "paid": _paid_to_json(self.paid),
            "composition": self.served.kind,
            "shares": [part.share for part in self.served.parts],
        }
        return RecordDict({"task": ConfigRecord({"json": to_json(task)}), "state": pack(self.served)})

    @classmethod
    def from_content(cls, content: RecordDict) -> Self:
        """Parse a message's content; raises FormatError."""
        task = _json(content, "task")
        try:
            parent = Signed.parse(RoundRecord, task["parent"]) if task["parent"] else None
            openings = tuple(Signed.parse(GenerationRecord, opening) for opening in task["openings"])
            salts = Salts.from_dict(task["salts"]) if task["salts"] else None
            genesis = Genesis.from_dict(task["genesis"])
            place = {name: task[name] for name in ("organisation", "lane", "generation", "round")}
            paid = _paid_from_json(task["paid"])
            served = Composition(task["composition"], tuple(_served(task["shares"], content)))
        except (KeyError, TypeError) as error:
            raise FormatError(f"malformed task: {error}") from error
        if (parent is None) != (salts is None):
            raise FormatError("malformed task: a record comes with its salts")
        return cls(genesis=genesis, openings=openings, parent=parent, salts=salts, served=served, paid=paid, **place)


def _served(shares: list[Any], content: RecordDict) -> Iterator[Part]:
    for name, share in zip(_names(len(shares)), shares, strict=True):
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
            raise FormatError(f"malformed task: share {share!r}, more than 0 and at most 1 wanted")
        yield Part(share, AdapterState.from_bytes(_bytes(content, "state", name)))


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

    def to_content(self) -> RecordDict:
        """As a message's content."""
        plain = {name: getattr(self, name) for name in ("organisation", "lane", "generation", "round", "traffic")}
        query = plain | {"genesis": self.genesis.to_dict(), "paid": _paid_to_json(self.paid)}
        return RecordDict({"offer": ConfigRecord({"json": to_json(query)})})

    @classmethod
    def from_content(cls, content: RecordDict) -> Self:
        """Parse a message's content; raises FormatError."""
        query = _json(content, "offer")
        try:
            plain = {name: query[name] for name in ("organisation", "lane", "generation", "round", "traffic")}
            return cls(genesis=Genesis.from_dict(query["genesis"]), paid=_paid_from_json(query["paid"]), **plain)
        except (KeyError, TypeError) as error:
            raise FormatError(f"malformed query for an offer: {error}") from error


def offered(signed: Signed[Offer]) -> RecordDict:
    """The content of the reply to a query for an offer."""
    return RecordDict({"offered": ConfigRecord({"json": to_json(signed.to_dict())})})


def offer_of(content: RecordDict) -> Signed[Offer]:
    """The offer in a reply; raises FormatError."""
    return Signed.parse(Offer, _json(content, "offered"))


@dataclass(frozen=True)
class Deletion:
    """The server asks an organisation to delete whatever it keeps that knew somebody who was erased."""

    genesis: Genesis
    organisation: Address
    attested: Signed[Attestation]

    def to_content(self) -> RecordDict:
        """As a message's content."""
        query = {"genesis": self.genesis.to_dict(), "organisation": self.organisation}
        return RecordDict({"delete": ConfigRecord({"json": to_json(query | {"attested": self.attested.to_dict()})})})

    @classmethod
    def from_content(cls, content: RecordDict) -> Self:
        """Parse a message's content; raises FormatError."""
        query = _json(content, "delete")
        try:
            attested = Signed.parse(Attestation, query["attested"])
            return cls(Genesis.from_dict(query["genesis"]), query["organisation"], attested)
        except (KeyError, TypeError) as error:
            raise FormatError(f"malformed query to delete: {error}") from error


def deleted(receipt: Signed[Receipt]) -> RecordDict:
    """The content of the reply to a query to delete."""
    return RecordDict({"deleted": ConfigRecord({"json": to_json(receipt.to_dict())})})


def receipt_of(content: RecordDict) -> Signed[Receipt]:
    """The receipt in a reply; raises FormatError."""
    return Signed.parse(Receipt, _json(content, "deleted"))


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
            "genesis": self.genesis.to_dict(),
            "request": self.request.to_dict(),
            "records": list(self.records),
            "forget": self.forget,
        }
        return RecordDict({"records": ConfigRecord({"json": to_json(query)})})

    @classmethod
    def from_content(cls, content: RecordDict) -> Self:
        """Parse a message's content; raises FormatError."""
        query = _json(content, "records")
        try:
            request, forget = Signed.parse(ErasureRequest, query["request"]), query["forget"] is True
            return cls(Genesis.from_dict(query["genesis"]), request, _digests(query["records"]), forget)
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
        return RecordDict({"known": ConfigRecord({"json": to_json(answer)})})

    @classmethod
    def from_content(cls, content: RecordDict) -> Self:
        """Parse a reply's content; raises FormatError."""
        answer = _json(content, "known")
        try:
            return cls(_digests(answer["held"]), _digests(answer["forgotten"]))
        except (KeyError, TypeError) as error:
            raise FormatError(f"malformed answer about records: {error}") from error


def _digests(values: Iterable[Digest]) -> tuple[Digest, ...]:
    found = tuple(values)
    for value in found:
        raw(value)
    return found


def _paid_to_json(paid: Mapping[int, float]) -> dict[str, float]:
    return {str(number): amount for number, amount in paid.items()}


def _paid_from_json(paid: Any) -> dict[int, float]:
    if not isinstance(paid, dict) or not all(number.isdecimal() for number in paid):
        raise FormatError(f"what was paid is {paid!r}, amounts by round wanted")
    return {int(number): _finite(f"payment of round {number}", amount) for number, amount in paid.items()}


@dataclass(frozen=True)
class Reply:
    """A trained update as it arrives: its signed manifest, and the bytes it claims to describe (not yet parsed)."""

    signed: Signed[UpdateManifest]
    update: memoryview

    @classmethod
    def from_content(cls, content: RecordDict) -> Self:
        """Parse a reply's content; raises FormatError."""
        manifest = UpdateManifest.from_dict(_json(content, "manifest"))
        signature = _config(content, "signature").get("hex")
        if not isinstance(signature, str):
            raise FormatError("reply's signature is no text")
        return cls(Signed(manifest, (Signature(signature),)), _bytes(content, "update"))


class Refused(StrEnum):
    """Why an organisation will not answer: the chain is late beyond what it allows, or what it was sent is wrong."""

    ABSTAINED = "abstained"
    OBJECTED = "objected"


@dataclass(frozen=True)
class Refusal:
    """What an organisation answers when it will not take part; `detail` is in its own words."""

    reason: Refused
    detail: str

    def to_content(self) -> RecordDict:
        """As a reply's content."""
        return RecordDict({"refusal": ConfigRecord({"json": to_json(asdict(self))})})

    @classmethod
    def from_content(cls, content: RecordDict) -> Self | None:
        """The refusal in a reply's content, None when there is none; raises FormatError."""
        if "refusal" not in content.config_records:
            return None
        refusal = _json(content, "refusal")
        try:
            return cls(Refused(refusal["reason"]), str(refusal["detail"]))
        except (KeyError, ValueError) as error:
            raise FormatError(f"malformed refusal: {error}") from error


def unsigned_reply(manifest: UpdateManifest, update: AdapterState) -> RecordDict:
    """What a train handler returns; the signing mod adds the signature."""
    return RecordDict({"manifest": ConfigRecord({"json": to_json(manifest.to_dict())}), "update": pack(update)})


def manifest_of(content: RecordDict) -> UpdateManifest:
    """The manifest in a reply that is about to be signed; raises FormatError."""
    return UpdateManifest.from_dict(_json(content, "manifest"))


def attach_signature(content: RecordDict, signature: Signature) -> None:
    """Add the signature to a reply."""
    content["signature"] = ConfigRecord({"hex": signature})


@dataclass(frozen=True)
class Bind:
    """The coordinator asks a node for the organisations it hosts: what to sign, for which chain and contract."""

    asked: Asked
    chain: Domain

    def to_content(self) -> RecordDict:
        """As a message's content."""
        return RecordDict({"bind": ConfigRecord({"json": to_json(asdict(self))})})

    @classmethod
    def from_content(cls, content: RecordDict) -> Self:
        """Parse a message's content; raises FormatError."""
        bind = _json(content, "bind")
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
        return RecordDict({"bound": ConfigRecord({"json": to_json(bound)})})

    @classmethod
    def from_content(cls, content: RecordDict) -> Self:
        """Parse a message's content; raises FormatError."""
        bound = _json(content, "bound")
        try:
            found = cls(tuple(Signed.parse(Registration, r) for r in bound["organisations"]), bound["known"])
        except (KeyError, TypeError) as error:
            raise FormatError(f"malformed bind reply: {error}") from error
        if type(found.known) is not int or found.known < 0:
            raise FormatError(f"malformed bind reply: expected a count as known, got {found.known!r}")
        return found


def losses(values: Mapping[str, float]) -> RecordDict:
    """The content of an evaluation's reply: losses in nats per answer token."""
    return RecordDict({"losses": MetricRecord(dict(values))})


def losses_of(content: RecordDict) -> dict[str, float]:
    """The losses in an evaluation's reply; raises FormatError."""
    record = content.metric_records.get("losses")
    if record is None:
        raise FormatError("reply carries no losses")
    return {name: _finite(name, value) for name, value in record.items()}


def _finite(name: str, value: object) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise FormatError(f"loss {name!r} is {value!r}, a finite number wanted")
    return float(value)


def pack(served: AdapterState | Composition) -> ArrayRecord:
    """Each state's canonical bytes as one array: no overhead for each tensor, nothing to misread."""
    states = served.states if isinstance(served, Composition) else (served,)
    data = zip(_names(len(states)), (state.to_bytes() for state in states), strict=True)
    return ArrayRecord({name: Array("uint8", (len(found),), _SAFETENSORS, found) for name, found in data})


def unpack(content: RecordDict, name: str) -> AdapterState:
    """The AdapterState in a record; raises FormatError for anything else."""
    return AdapterState.from_bytes(_bytes(content, name))


def traffic(state: AdapterState) -> float:
    """MiB that a round sends and receives for a state of this size."""
    return 2 * state.nbytes / 2**20


def release(content: RecordDict) -> None:
    """Let go of a message's arrays: Flower's records stand in reference cycles, which would keep them for long."""
    for record in content.array_records.values():
        record.clear()


def _names(count: int) -> list[str]:
    """What the arrays of so many states are called."""
    return ["bytes"] if count == 1 else [f"bytes.{number}" for number in range(count)]


def _bytes(content: RecordDict, name: str, part: str = "bytes") -> memoryview:
    record = content.array_records.get(name)
    if record is None or part not in record:
        raise FormatError(f"message carries no {name!r}")
    array = record[part]
    if array.stype != _SAFETENSORS:
        raise FormatError(f"{name!r} is an array of type {array.stype!r}, {_SAFETENSORS!r} wanted")
    return memoryview(array.data)


def _config(content: RecordDict, name: str) -> ConfigRecord:
    record = content.config_records.get(name)
    if record is None:
        raise FormatError(f"message carries no {name!r}")
    return record


def _json(content: RecordDict, name: str) -> dict[str, Any]:
    data = _config(content, name).get("json")
    if not isinstance(data, bytes):
        raise FormatError(f"message's {name!r} holds no JSON")
    value = from_json(data)
    if not isinstance(value, dict):
        raise FormatError(f"message's {name!r} is not an object")
    return value
