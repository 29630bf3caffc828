"""What is signed of an erasure: the request, what is about to happen with what the audit found, and receipts.

    RUN/erasures/L0000-G0001.json       the attestation of the erasure that opens generation 1 of lane 0
    RUN/certificates/L0000-G0001.json   the certificate, once everything is done (unlearning/certificate.py)

An attestation is the point of no return: whoever finds one without a certificate finds an erasure that has to be gone
on with. It lists every state and every salt that is about to vanish, so that an audit afterwards can tell what was
erased from what was lost.
"""

import hmac
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any, Self

from core.canonical import ZERO_DIGEST, Address, Digest, address, commitment, digest, domain, raw, to_json
from core.errors import ForgeryError, FormatError
from core.keys import Domain, Fields, Key, Signature, signer
from core.parsing import parsed
from core.rounds import Genesis

METHODS = ("remove", "repair", "replay", "shards")
OF_RECORDS = ("replay", "shards")
"""The methods that erase records, and leave the organisation where it is."""

_REQUEST: Fields = (
    ("genesis", "bytes32"),
    ("organisation", "address"),
    ("method", "string"),
    ("records", "bytes32"),
    ("count", "uint32"),
    ("basis", "string"),
    ("nonce", "bytes32"),
)
_ATTESTATION: Fields = (
    ("genesis", "bytes32"),
    ("lane", "uint32"),
    ("generation", "uint32"),
    ("attestation", "bytes32"),
)
_RECEIPT: Fields = (
    ("genesis", "bytes32"),
    ("erasure", "bytes32"),
    ("organisation", "address"),
)


@dataclass(frozen=True)
class ErasureRequest:
    """An organisation asks that it be erased, or `count` of its records.

    `records` hides which ones (see `hidden`); it is zero, as `count`, for the whole organisation. `basis` is the legal
    basis that it gives, `nonce` makes the request unique.
    """

    genesis: Digest
    organisation: Address
    method: str
    records: Digest
    count: int
    basis: str
    nonce: Digest

    @property
    def whole(self) -> bool:
        """Whether it is about the whole organisation."""
        return not self.count

    @property
    def digest(self) -> Digest:
        """SHA-256 of the canonical JSON under ``foedus/erasure-request/v1``."""
        return digest("erasure-request", to_json(asdict(self)))

    def sign(self, key: Key, domain: Domain) -> "SignedRequest":
        """Sign with the organisation's key."""
        return SignedRequest(self, key.sign(domain, "ErasureRequest", _REQUEST, self._message()))

    def _message(self) -> dict[str, Any]:
        digests = {name: raw(getattr(self, name)) for name in ("genesis", "records", "nonce")}
        return asdict(self) | digests


def hidden(key: Key, nonce: Digest, records: Collection[Digest]) -> Digest:
    """The commitment to records in a request of this nonce; zero for none.

    Its salt is HMAC-SHA256 of the nonce under the organisation's secret key: whoever knows a record but not the key
    cannot tell whether it was erased, and the organisation can show it at any time.
    """
    if not records:
        return ZERO_DIGEST
    salt = hmac.digest(key.secret, domain("records-salt") + raw(nonce), "sha256")
    return commitment(salt, digest("records", *map(raw, sorted(set(records)))))


@dataclass(frozen=True)
class SignedRequest:
    """A request and the signature of the organisation that it is about."""

    request: ErasureRequest
    signature: Signature

    def verified(self, genesis: Genesis) -> ErasureRequest:
        """The request; raises ForgeryError when it is for another federation, or another key signed it."""
        request = self.request
        if request.genesis != genesis.digest:
            raise ForgeryError(f"the request is for federation {request.genesis}, {genesis.digest} wanted")
        by = signer(self.signature, genesis.chain, "ErasureRequest", _REQUEST, request._message())
        if by != request.organisation:
            raise ForgeryError(f"the request to erase {request.organisation} is signed by {by}")
        return request

    def to_dict(self) -> dict[str, Any]:
        """Plain data for canonical JSON."""
        return {"request": asdict(self.request), "signature": self.signature}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Parse plain data; raises FormatError."""
        signed = parsed(cls, data, {"request": lambda v: parsed(ErasureRequest, v, {})})
        request = signed.request
        methods = OF_RECORDS if request.count else tuple(name for name in METHODS if name != "shards")
        if request.method not in methods:
            raise FormatError(f"erasure request has method {request.method!r}, one of {', '.join(methods)} wanted")
        if not 0 <= request.count < 2**32 or request.whole != (request.records == ZERO_DIGEST):
            raise FormatError(f"erasure request is about {request.count} records, committed as {request.records}")
        return signed


@dataclass(frozen=True)
class Attestation:
    """What an erasure does to a lane, and what a full audit found just before.

    Generation `generation` grows from (`parent_generation`, `parent_round`), sums the rounds up to `carried` again
    without `erased` and trains those up to `rounds`; an organisation that erases records only is not among `erased`
    and trains without them. `destroyed` are the states that become unreadable, `unsalted` the
    digests of the records whose salts vanish, `holders` who was sent a state that knew the erased. `recomputed` and
    `attested` count the rounds of that audit, which had no failure. `salt` hides all of it on the chain.
    """

    request: SignedRequest
    lane: int
    generation: int
    parent_generation: int
    parent_round: int
    carried: int
    rounds: int
    erased: tuple[Address, ...]
    destroyed: tuple[Digest, ...]
    unsalted: tuple[Digest, ...]
    holders: tuple[Address, ...]
    recomputed: int
    attested: int
    salt: str

    @property
    def organisation(self) -> Address:
        """Who asked: it is erased, or records of it."""
        return self.request.request.organisation

    @property
    def whole(self) -> bool:
        """Whether the whole organisation is erased."""
        return self.request.request.whole

    @property
    def method(self) -> str:
        """How."""
        return self.request.request.method

    @property
    def digest(self) -> Digest:
        """SHA-256 of the canonical JSON under ``foedus/attestation/v1``."""
        return digest("attestation", to_json(self.to_dict()))

    @property
    def erasure(self) -> Digest:
        """The erasure's id on the chain: the salted digest of the request."""
        return self.hide(self.request.request.digest)

    def hide(self, value: Digest) -> Digest:
        """The salted digest of a value, as the chain has it."""
        return commitment(bytes.fromhex(self.salt), value)

    def message(self) -> dict[str, Any]:
        """The EIP-712 struct that coordinator and requester sign."""
        place = {"lane": self.lane, "generation": self.generation}
        return place | {"genesis": raw(self.request.request.genesis), "attestation": raw(self.digest)}

    def sign(self, coordinator: Key, requester: Key, domain: Domain) -> "SignedAttestation":
        """Sign as both."""
        both = (key.sign(domain, "Attestation", _ATTESTATION, self.message()) for key in (coordinator, requester))
        return SignedAttestation(self, *both)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for canonical JSON."""
        flat = {f.name: getattr(self, f.name) for f in fields(self)}
        lists = {name: list(flat[name]) for name in _LISTS}
        return flat | lists | {"request": self.request.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Parse plain data; raises FormatError."""
        lists = {name: partial(_tuple, check) for name, check in _LISTS.items()}
        found = parsed(cls, data, {"request": SignedRequest.from_dict, "salt": _salt, **lists})
        if not 0 <= found.parent_generation < found.generation:
            raise FormatError("malformed Attestation: it opens no generation")
        if found.whole != (found.organisation in found.erased):
            raise FormatError("malformed Attestation: it leaves out who asked, or erases who asked for records only")
        if odd := [name for name in _COUNTS if not 0 <= getattr(found, name) < 2**32]:
            raise FormatError(f"malformed Attestation: {odd[0]} is {getattr(found, odd[0])}, 32 bits wanted")
        return found


@dataclass(frozen=True)
class SignedAttestation:
    """An attestation, signed by the coordinator and by the organisation that asked."""

    attestation: Attestation
    coordinator: Signature
    requester: Signature

    def verified(self, genesis: Genesis) -> Attestation:
        """The attestation; raises ForgeryError for a signature that is not the claimed signer's."""
        attestation = self.attestation
        attestation.request.verified(genesis)
        wanted = ((genesis.coordinator, self.coordinator), (attestation.organisation, self.requester))
        for who, signature in wanted:
            by = signer(signature, genesis.chain, "Attestation", _ATTESTATION, attestation.message())
            if by != who:
                raise ForgeryError(f"the attestation of the erasure of {attestation.organisation} is signed by {by}")
        return attestation

    def to_dict(self) -> dict[str, Any]:
        """Plain data for canonical JSON."""
        signatures = {"coordinator": self.coordinator, "requester": self.requester}
        return {"attestation": self.attestation.to_dict()} | signatures

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Parse plain data; raises FormatError."""
        return parsed(cls, data, {"attestation": Attestation.from_dict})


@dataclass(frozen=True)
class Receipt:
    """An organisation says that it has deleted every copy of what it was sent that knew the erased."""

    organisation: Address
    signature: Signature

    @classmethod
    def sign(cls, genesis: Genesis, erasure: Digest, key: Key) -> Self:
        """Sign with the organisation's key."""
        message = _receipt(genesis.digest, erasure, key.address)
        return cls(key.address, key.sign(genesis.chain, "DeletionReceipt", _RECEIPT, message))

    def check(self, genesis: Genesis, erasure: Digest) -> None:
        """Raise ForgeryError unless this organisation signed it for this erasure."""
        message = _receipt(genesis.digest, erasure, self.organisation)
        by = signer(self.signature, genesis.chain, "DeletionReceipt", _RECEIPT, message)
        if by != self.organisation:
            raise ForgeryError(f"the receipt of {self.organisation} is signed by {by}")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Parse plain data; raises FormatError."""
        return parsed(cls, data, {})


def _receipt(genesis: Digest, erasure: Digest, organisation: Address) -> dict[str, Any]:
    return {"genesis": raw(genesis), "erasure": raw(erasure), "organisation": organisation}


def _tuple(check: Callable[[Any], Any], values: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(check(value) for value in values)


def _digest(value: Digest) -> Digest:
    raw(value)
    return value


def _salt(value: str) -> str:
    if not _SALT.fullmatch(value):
        raise FormatError(f"a salt is 64 lower-case hex digits, got {value!r}")
    return value


_SALT = re.compile(r"[0-9a-f]{64}")
_LISTS = {"erased": address, "destroyed": _digest, "unsalted": _digest, "holders": address}
_COUNTS = ("lane", "generation", "parent_generation", "parent_round", "carried", "rounds", "recomputed", "attested")
