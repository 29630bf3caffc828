"""Signed[T]: a value and the EIP-712 signatures under it.

Every signed noun is a `Statement`: it says which struct is signed and whose signatures it needs. `Signed.verified`
returns the value, never a bool, so that nothing unverified can be used by mistake.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from core.canonical import Address, Digest
from core.eip712 import Fields
from core.errors import ForgeryError, FormatError
from core.keys import Domain, PublicKey, Signature, Struct, signer, signing_key
from core.parsing import in_words, parsed

Place = tuple[int, int]
"""A lane and a generation."""


class SigningKey(Protocol):
    """What signs for one address: a key in this process (`core.keys.Key`), or another process that holds it.

    It raises IntegrityError when the holder refuses to sign.
    """

    @property
    def address(self) -> Address:
        """The address that it speaks for: its own, or that of a member whose key it has become by a rotation."""

    @property
    def derived(self) -> bool:
        """Whether it is a simulation's public key."""

    def sign_statement(self, domain: Domain, statement: Struct) -> Signature:
        """Sign a statement."""

    def salt_for(self, nonce: Digest) -> bytes:
        """A secret that only this key can compute from a digest: a salt, or a nonce; the same each time."""


@dataclass(frozen=True)
class Statement(ABC):
    """A noun that is signed as the EIP-712 struct `struct` with `struct_fields`."""

    struct: ClassVar[str]
    struct_fields: ClassVar[Fields]

    @abstractmethod
    def message(self) -> dict[str, Any]:
        """The values of the struct's fields."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for canonical JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Parse plain data; raises FormatError."""
        return parsed(cls, data, {})

    def sign(self, key: SigningKey, domain: Domain, *cosigners: SigningKey) -> "Signed[Self]":
        """Sign with every key, in order."""
        return Signed(self, tuple(by.sign_statement(domain, self) for by in (key, *cosigners)))


class Federation(Protocol):
    """The part of a genesis that decides whether a signature counts."""

    @property
    def digest(self) -> Digest:
        """The genesis digest."""

    @property
    def chain(self) -> Domain:
        """The EIP-712 domain."""

    @property
    def coordinator(self) -> Address:
        """The coordinator's address."""

    def signing(self, owner: Address, place: Place | None = None) -> Address:
        """The address whose key signs for a member, or the coordinator, at a place; now, where there is none."""


class MemberStatement(Statement):
    """A statement within one federation: it names the genesis, and the genesis says whose signatures it needs."""

    @property
    def place(self) -> Place | None:
        """Where it stands in a lane's history, which decides the keys that count; None: they are those of now."""
        return None

    @abstractmethod
    def federation(self) -> Digest:
        """The digest of the genesis it belongs to."""

    @abstractmethod
    def signers(self, federation: Federation, place: Place | None) -> tuple[Address, ...]:
        """Whose signatures it needs at a place, in order."""

    def parts(self) -> "tuple[Signed[Any], ...]":
        """Signed statements that it contains; they are verified with it."""
        return ()


@dataclass(frozen=True)
class CoordinatorStatement(MemberStatement):
    """A statement of the coordinator within one federation; `genesis` is the digest of its genesis."""

    genesis: Digest

    def federation(self) -> Digest:
        """The genesis digest."""
        return self.genesis

    def signers(self, federation: Federation, place: Place | None) -> tuple[Address, ...]:
        """The coordinator."""
        return (federation.signing(federation.coordinator, place),)


@dataclass(frozen=True)
class OrganisationStatement(MemberStatement):
    """A statement of one organisation within one federation; `genesis` is the digest of its genesis."""

    genesis: Digest
    organisation: Address

    def federation(self) -> Digest:
        """The genesis digest."""
        return self.genesis

    def signers(self, federation: Federation, place: Place | None) -> tuple[Address, ...]:
        """The organisation."""
        return (federation.signing(self.organisation, place),)


S_co = TypeVar("S_co", bound=Statement, covariant=True)
N = TypeVar("N", bound=Statement)
M = TypeVar("M", bound=MemberStatement)


@dataclass(frozen=True)
class Signed(Generic[S_co]):
    """A value and its signatures, in the order of its signers."""

    value: S_co
    signatures: tuple[Signature, ...]

    def verified(self: "Signed[M]", federation: Federation, place: Place | None = None) -> M:
        """The value; raises ForgeryError for another federation, or a signature that is not its signer's.

        A statement that has no place of its own is checked by the keys of `place`: those of what contains it.
        """
        place = self.value.place or place
        value, noun = self.value, in_words(type(self.value))
        if (got := value.federation()) != federation.digest:
            raise ForgeryError(f"{noun}: expected federation {federation.digest}, got {got}")
        for part in value.parts():
            part.verified(federation, place)
        return self.signed_by(federation.chain, *value.signers(federation, place))

    def signed_by(self, domain: Domain, *signers: Address) -> S_co:
        """The value; raises ForgeryError unless exactly these signed it, in this order."""
        value, noun = self.value, in_words(type(self.value))
        if len(self.signatures) != len(signers):
            raise ForgeryError(f"{noun}: expected {len(signers)} signatures, got {len(self.signatures)}")
        for signature, expected in zip(self.signatures, signers, strict=True):
            got = signer(signature, domain, value.struct, value.struct_fields, value.message())
            if got != expected:
                raise ForgeryError(f"{noun}: expected the signature of {expected}, got that of {got}")
        return value

    def public_key(self, domain: Domain, index: int = 0) -> PublicKey:
        """The key behind a signature, for which something can be sealed; raises ForgeryError."""
        value = self.value
        return signing_key(self.signatures[index], domain, value.struct, value.struct_fields, value.message())

    def to_dict(self) -> dict[str, Any]:
        """Plain data for canonical JSON."""
        return {"value": self.value.to_dict(), "signatures": list(self.signatures)}

    @staticmethod
    def parse(noun: type[N], data: Mapping[str, Any]) -> "Signed[N]":
        """Parse plain data; raises FormatError. Signatures are checked when they are verified."""
        nested = {"value": noun.from_dict, "signatures": _signatures}
        return parsed(Signed, data, nested, f"signed {in_words(noun)}")


def _signatures(values: Any) -> tuple[Signature, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise FormatError(f"malformed signatures: expected a list of text, got {str(values)[:140]!r}")
    return tuple(Signature(value) for value in values)
