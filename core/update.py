"""What an organisation signs: its registration with a federation, and the manifest of every update.

Both are EIP-712 structs, so that wallets and contracts can check them; their domain binds chain and contract.
"""

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from core.canonical import Address, Digest, address, digest, raw, to_json
from core.errors import ForgeryError, FormatError
from core.keys import Domain, Fields, Key, PublicKey, Signature, address_of, signer, signing_key

_REGISTRATION: Fields = (
    ("name", "string"),
    ("organisation", "address"),
    ("examples", "uint64"),
    ("derived", "bool"),
    ("challenge", "bytes32"),
)
_OFFER: Fields = (
    ("genesis", "bytes32"),
    ("organisation", "address"),
    ("lane", "uint32"),
    ("generation", "uint32"),
    ("round", "uint32"),
    ("steps", "uint32"),
    ("rank", "uint32"),
)
_MANIFEST: Fields = (
    ("genesis", "bytes32"),
    ("organisation", "address"),
    ("lane", "uint32"),
    ("generation", "uint32"),
    ("round", "uint32"),
    ("parent", "bytes32"),
    ("update", "bytes32"),
    ("examples", "uint64"),
    ("tokens", "uint64"),
    ("steps", "uint32"),
    ("rank", "uint32"),
    ("metrics", "string"),
    ("nonce", "bytes32"),
)


@dataclass(frozen=True, order=True)
class Organisation:
    """A member as the genesis fixes it.

    `examples` is its registered count n_k; `derived` says that its key is a simulation's, which anybody can compute.
    """

    address: Address
    name: str
    examples: int
    derived: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain data for canonical JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Registration:
    """An organisation's answer to the server's challenge: who it is and how many examples it has."""

    organisation: Organisation
    challenge: Digest
    signature: Signature

    @classmethod
    def sign(cls, organisation: Organisation, challenge: Digest, key: Key, domain: Domain) -> "Registration":
        """Sign with the organisation's own key."""
        message = _registration_message(organisation, challenge)
        return cls(organisation, challenge, key.sign(domain, "Registration", _REGISTRATION, message))

    def verified(self, domain: Domain, challenge: Digest) -> Organisation:
        """The organisation; raises ForgeryError for another challenge or another's signature."""
        if self.challenge != challenge:
            raise ForgeryError(f"registration answers challenge {self.challenge}, {challenge} was asked")
        if (by := address_of(self.public_key(domain))) != self.organisation.address:
            raise ForgeryError(f"registration of {self.organisation.address} is signed by {by}")
        return self.organisation

    def public_key(self, domain: Domain) -> PublicKey:
        """The key that signed it, for whom the organisation's artifacts are sealed; raises ForgeryError."""
        message = _registration_message(self.organisation, self.challenge)
        return signing_key(self.signature, domain, "Registration", _REGISTRATION, message)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for canonical JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Registration":
        """Parse plain data; raises FormatError when a field is missing or of the wrong type."""
        try:
            organisation = Organisation(**data["organisation"])
            parsed = cls(organisation, Digest(data["challenge"]), Signature(data["signature"]))
            _registration_message(organisation, parsed.challenge)
        except (KeyError, TypeError) as error:
            raise FormatError(f"malformed registration: {error}") from error
        if not isinstance(organisation.name, str) or not organisation.name or type(organisation.derived) is not bool:
            raise FormatError(f"malformed registration: {organisation}")
        _check_count("examples", organisation.examples, 64)
        if organisation.examples == 0:
            raise FormatError(f"malformed registration: {organisation.name!r} has no examples")
        return parsed


@dataclass(frozen=True)
class Bid:
    """What an organisation offers for a round: local steps, and how many of the adapter's columns it trains."""

    steps: int
    rank: int


ABSTAIN = Bid(0, 0)
"""What an organisation bids that will not take part."""


@dataclass(frozen=True)
class Offer:
    """What an organisation bids for a round to come when it is asked apart; `ABSTAIN` for none."""

    genesis: Digest
    organisation: Address
    lane: int
    generation: int
    round: int
    bid: Bid

    def sign(self, key: Key, domain: Domain) -> "SignedOffer":
        """Sign with the organisation's key."""
        return SignedOffer(self, key.sign(domain, "Offer", _OFFER, self._message()))

    def _message(self) -> dict[str, Any]:
        place = {"lane": self.lane, "generation": self.generation, "round": self.round}
        return place | asdict(self.bid) | {"genesis": raw(self.genesis), "organisation": self.organisation}

    def to_dict(self) -> dict[str, Any]:
        """Plain data for canonical JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Offer":
        """Parse plain data; raises FormatError."""
        try:
            offer = cls(**{**data, "bid": Bid(**data["bid"])})
        except (KeyError, TypeError) as error:
            raise FormatError(f"malformed offer: {error}") from error
        for name in ("lane", "generation", "round"):
            _check_count(name, getattr(offer, name), 32)
        for name in ("steps", "rank"):
            _check_count(name, getattr(offer.bid, name), 32)
        address(offer.organisation)
        raw(offer.genesis)
        return offer


@dataclass(frozen=True)
class SignedOffer:
    """An offer and the signature of its organisation."""

    offer: Offer
    signature: Signature

    def verified(self, domain: Domain) -> Offer:
        """The offer; raises ForgeryError when another key signed it."""
        by = signer(self.signature, domain, "Offer", _OFFER, self.offer._message())
        if by != self.offer.organisation:
            raise ForgeryError(f"offer of {self.offer.organisation} is signed by {by}")
        return self.offer

    def to_dict(self) -> dict[str, Any]:
        """Plain data for canonical JSON."""
        return {"offer": self.offer.to_dict(), "signature": self.signature}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "SignedOffer":
        """Parse plain data; raises FormatError."""
        try:
            return cls(Offer.from_dict(data["offer"]), Signature(data["signature"]))
        except (KeyError, TypeError) as error:
            raise FormatError(f"malformed signed offer: {error}") from error


@dataclass(frozen=True)
class UpdateManifest:
    """One organisation's update of one round, as it vouches for it.

    `parent` is the digest of the RoundRecord it trained from (the genesis digest before round 1), `update` the
    digest of the AdapterState it sends, `examples` the records it drew from, `tokens` the answer tokens it trained
    on, `nonce` 32 random bytes that make every manifest unique.
    """

    genesis: Digest
    organisation: Address
    lane: int
    generation: int
    round: int
    parent: Digest
    update: Digest
    examples: int
    tokens: int
    bid: Bid
    nonce: Digest
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def digest(self) -> Digest:
        """SHA-256 of the canonical JSON under ``foedus/manifest/v1``."""
        return digest("manifest", to_json(self.to_dict()))

    def sign(self, key: Key, domain: Domain) -> "SignedManifest":
        """Sign with the organisation's key."""
        return SignedManifest(self, key.sign(domain, "Update", _MANIFEST, self._message()))

    def _message(self) -> dict[str, Any]:
        flat = {name: getattr(self, name) for name, _ in _MANIFEST if hasattr(self, name)}
        hashes = {name: raw(flat[name]) for name, kind in _MANIFEST if kind == "bytes32"}
        bid = {"steps": self.bid.steps, "rank": self.bid.rank}
        return flat | hashes | bid | {"metrics": to_json(dict(self.metrics)).decode()}

    def to_dict(self) -> dict[str, Any]:
        """Plain data for canonical JSON."""
        return asdict(self) | {"metrics": dict(self.metrics)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "UpdateManifest":
        """Parse plain data; raises FormatError when a field is missing, unknown, or out of its type's range."""
        try:
            manifest = cls(**{**data, "bid": Bid(**data["bid"])})
        except (KeyError, TypeError) as error:
            raise FormatError(f"malformed manifest: {error}") from error
        for name, kind in _MANIFEST:
            if kind.startswith("uint"):
                source = manifest.bid if name in {"steps", "rank"} else manifest
                _check_count(name, getattr(source, name), int(kind[4:]))
        address(manifest.organisation)
        for value in (manifest.genesis, manifest.parent, manifest.update, manifest.nonce):
            raw(value)
        _check_metrics(manifest.metrics)
        return manifest


@dataclass(frozen=True)
class SignedManifest:
    """A manifest and the signature of its organisation."""

    manifest: UpdateManifest
    signature: Signature

    @property
    def digest(self) -> Digest:
        """Digest of the manifest; a signature has twins and never names anything."""
        return self.manifest.digest

    def verified(self, domain: Domain) -> UpdateManifest:
        """The manifest; raises ForgeryError when another key signed it."""
        manifest = self.manifest
        by = signer(self.signature, domain, "Update", _MANIFEST, manifest._message())
        if by != manifest.organisation:
            raise ForgeryError(f"manifest of {manifest.organisation} is signed by {by}")
        return manifest

    def to_dict(self) -> dict[str, Any]:
        """Plain data for canonical JSON."""
        return {"manifest": self.manifest.to_dict(), "signature": self.signature}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "SignedManifest":
        """Parse plain data; raises FormatError."""
        try:
            return cls(UpdateManifest.from_dict(data["manifest"]), Signature(data["signature"]))
        except (KeyError, TypeError) as error:
            raise FormatError(f"malformed signed manifest: {error}") from error


def _registration_message(organisation: Organisation, challenge: Digest) -> dict[str, Any]:
    return {
        "name": organisation.name,
        "organisation": organisation.address,
        "examples": organisation.examples,
        "derived": organisation.derived,
        "challenge": raw(challenge),
    }


def _check_count(name: str, value: object, bits: int) -> None:
    if type(value) is not int or not 0 <= value < 2**bits:
        raise FormatError(f"{name} is {value!r}, an unsigned integer of {bits} bits wanted")


def _check_metrics(metrics: object) -> None:
    if not isinstance(metrics, Mapping):
        raise FormatError(f"metrics are {metrics!r}, an object wanted")
    for name, value in metrics.items():
        if not isinstance(name, str) or isinstance(value, bool) or not isinstance(value, int | float):
            raise FormatError(f"metric {name!r} is {value!r}, a number wanted")
        if not abs(value) <= sys.float_info.max:  # false for NaN, and for integers that no float can hold
            raise FormatError(f"metric {name!r} is not finite")
