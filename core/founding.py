"""How a federation is agreed: registrations, the members' nonces behind the seed, and their consent to the genesis.

    registration   each member signs who it is, and commits to a nonce, before it knows anybody else's
    reveal         once the members are known, each shows its nonce: to one set of registrations, and to no other
    consent        each signs the digest of the genesis that follows, before round 1

The seed is the hash of all nonces, so that nobody chooses it: whoever shows none is dropped, and all commit anew. In a
simulation, whose keys anybody can compute, the seed is set, and nobody is asked to consent.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from core.canonical import Address, Digest, digest, raw, to_json
from core.errors import IntegrityError
from core.genesis import Genesis
from core.parsing import parsed
from core.signed import OrganisationStatement, Place, Signed
from core.update import Organisation, Registration


@dataclass(frozen=True)
class Consent(OrganisationStatement):
    """A member's agreement to the genesis of its federation."""

    struct: ClassVar = "Consent"
    struct_fields: ClassVar = (("genesis", "bytes32"), ("organisation", "address"))

    genesis: Digest
    organisation: Address

    @property
    def place(self) -> Place:
        """The founding, before any key was rotated."""
        return 0, 0

    def message(self) -> dict[str, Any]:
        """The EIP-712 struct."""
        return {"genesis": raw(self.genesis), "organisation": self.organisation}


@dataclass(frozen=True)
class Founding:
    """What members signed before round 1: registrations and consents, both in order of address."""

    registrations: tuple[Signed[Registration], ...]
    consents: tuple[Signed[Consent], ...] = ()

    def check(self, genesis: Genesis) -> None:
        """Raise IntegrityError, or ForgeryError for a signature, unless these members agreed to this genesis."""
        if [signed.value.organisation for signed in self.registrations] != list(genesis.organisations):
            raise IntegrityError("expected a registration of each organisation of the genesis, in its order")
        for signed in self.registrations:
            plain = signed.value
            if (got := (plain.coordinator, plain.run)) != (expected := (genesis.coordinator, genesis.run)):
                raise IntegrityError(f"registration of {plain.organisation.name}: expected {expected}, got {got}")
            signed.signed_by(genesis.chain, plain.organisation.address)
        if all(member.derived for member in genesis.organisations) and not genesis.nonces and not self.consents:
            return  # a simulation, whose keys anybody can compute
        committed = [signed.value.nonce for signed in self.registrations]
        if [commitment_to(nonce) for nonce in genesis.nonces] != committed:
            raise IntegrityError("expected the nonces to which the members committed in their registrations")
        agreed = [signed.verified(genesis).organisation for signed in self.consents]
        if agreed != [member.address for member in genesis.organisations]:
            raise IntegrityError(f"expected the consent of all {len(genesis.organisations)} members, got {agreed}")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for canonical JSON."""
        return {
            "registrations": [signed.to_dict() for signed in self.registrations],
            "consents": [signed.to_dict() for signed in self.consents],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Parse plain data; raises FormatError."""
        nested = {
            "registrations": lambda v: tuple(Signed.parse(Registration, signed) for signed in v),
            "consents": lambda v: tuple(Signed.parse(Consent, signed) for signed in v),
        }
        return parsed(cls, data, nested)


def commitment_to(nonce: Digest) -> Digest:
    """The commitment to a nonce that a registration carries; the nonce is random, so that it needs no salt."""
    return digest("nonce", raw(nonce))


def founders_digest(members: Iterable[Organisation]) -> Digest:
    """SHA-256 under ``foedus/founders/v1`` of the members of a federation to be, in their order."""
    return digest("founders", to_json([member.to_dict() for member in members]))
