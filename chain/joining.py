"""What an organisation and its coordinator hand each other before a deployment runs: a kit, and a request.

Neither holds a secret. A kit says whom to reach and all that a node can pin; a request has the public half of the
node's key and the organisation's own signed request to be registered, which names that key (chain/membership.py).
"""

from dataclasses import asdict, dataclass
from typing import Any, Self

from chain.membership import MembershipRequest, digest_of_public_key
from core.canonical import Address, Digest, digest, from_json, to_json
from core.errors import IntegrityError
from core.keys import Domain
from core.names import Name
from core.parsing import parsed

_LONGEST = 2**16
"""Bytes of a kit or a request: a chain of certificates takes some thousand."""


@dataclass(frozen=True)
class JoinKit:
    """What a coordinator gives to one organisation.

    `superlink` is HOST:PORT; `ca` the PEM of the CA of its certificate; `chain` the public chain and contract, and
    `chain_url` where the coordinator reaches it ("" where nobody else does); `product` the coordinator's version.
    """

    federation: Name
    organisation: Name
    superlink: str
    ca: str
    coordinator: Address
    chain: Domain
    chain_url: str
    base: str
    base_digest: Digest
    norm_bound: float
    product: str

    @property
    def digest(self) -> Digest:
        """Its digest, which both sides compare over another channel than the kit's."""
        return digest("join-kit", self.to_json())

    def to_json(self) -> bytes:
        """The kit as a file."""
        return to_json(asdict(self))

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Parse a file; raises FormatError."""
        return parsed(cls, from_json(data, _LONGEST), {"chain": lambda value: parsed(Domain, value, {})})


@dataclass(frozen=True)
class JoinRequest:
    """What an organisation answers: `kit` is the digest of its kit, `node_key` an OpenSSH public key, one line."""

    federation: Name
    organisation: Name
    kit: Digest
    node_key: str
    membership: MembershipRequest
    product: str

    @property
    def address(self) -> Address:
        """The organisation's address."""
        return self.membership.organisation

    def to_json(self) -> bytes:
        """The request as a file."""
        return to_json(asdict(self))

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Parse a file; raises FormatError."""
        return parsed(cls, from_json(data, _LONGEST), {"membership": MembershipRequest.of})

    def verified(self, kit: JoinKit) -> Self:
        """Itself, if it answers this kit, names its own node key, and is signed by the key of its address.

        Raises IntegrityError, or ForgeryError for a signature of another.
        """
        signed = self.membership
        checks: dict[str, tuple[Any, Any]] = {
            "federation": (kit.federation, self.federation),
            "organisation": (kit.organisation, self.organisation),
            "kit": (kit.digest, self.kit),
            "chain and contract": (kit.chain, signed.domain),
            "node key": (signed.node_key, digest_of_public_key(self.node_key.encode())),
        }
        for name, (expected, got) in checks.items():
            if got != expected:
                raise IntegrityError(f"request of {self.organisation}: expected {name} {expected}, got {got}")
        signed.verify()
        return self
