"""The registry of organisations: address and SuperNode key of each, registered by its own signed request.

The request is EIP-712, bound to one chain and one contract, and good once: it carries the organisation's nonce and a
deadline. A coordinator submits it, which admits the organisation. The administrator revokes for good, from the next
round: a round whose parent was committed after the revocation's block must not contain the organisation.
"""

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key
from eth_hash.auto import keccak

from chain.contract import BoundContract, to_digest
from core.canonical import Address, Digest, from_json, raw, to_json
from core.errors import FormatError, UsageError
from core.keys import Domain, Fields, Key, Signature
from core.parsing import parsed

_SIGNATURE: Final = re.compile(r"0x[0-9a-f]{130}")
_MEMBERSHIP: Final[Fields] = (
    ("organisation", "address"),
    ("nodeKey", "bytes32"),
    ("nonce", "uint256"),
    ("deadline", "uint256"),
)


@dataclass(frozen=True)
class MembershipRequest:
    """An organisation's signed request.

    `domain`: the contract that it is for; `node_key`: `digest_of_node_key`, or zero; `deadline`: Unix time after which
    it is worthless.
    """

    domain: Domain
    organisation: Address
    node_key: Digest
    nonce: int
    deadline: int
    signature: Signature

    def to_json(self) -> bytes:
        """The request as a file."""
        return to_json(asdict(self))

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Parse a file; raises FormatError."""
        request = parsed(cls, from_json(data), {"domain": lambda value: parsed(Domain, value, {})})
        if not _SIGNATURE.fullmatch(str(request.signature)):
            raise FormatError(f"membership request: expected a signature of 65 bytes in hex, got {request.signature!r}")
        return request


@dataclass(frozen=True)
class RegisteredOrganisation:
    """A registered organisation, and the blocks of its first registration and of its revocation (0: none)."""

    node_key: Digest
    registered_at: int
    revoked_at: int


def request_membership(key: Key, domain: Domain, node_key: Digest, nonce: int, deadline: int) -> MembershipRequest:
    """The request of the organisation that owns `key`; `nonce` as `Registry.nonce` says."""
    message = {"organisation": key.address, "nodeKey": raw(node_key), "nonce": nonce, "deadline": deadline}
    signature = key.sign(domain, "Membership", _MEMBERSHIP, message)
    return MembershipRequest(domain, key.address, node_key, nonce, deadline, signature)


def digest_of_node_key(path: Path) -> Digest:
    """keccak256 of a SuperNode's public key (an OpenSSH file, as for Flower), in DER as SubjectPublicKeyInfo.

    Raises UsageError for a file that holds none.
    """
    try:
        key = load_ssh_public_key(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"expected an OpenSSH public key in {path}, got: {error}") from error
    return to_digest(keccak(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)))


class Registry:
    """The registered organisations of a public ledger.

    Every method raises LedgerUnreachableError when the node does not answer.
    """

    def __init__(self, bound: BoundContract) -> None:
        """`bound`: the PublicLedger contract; with the coordinator's key to register, the administrator's to revoke."""
        self._bound = bound

    @property
    def domain(self) -> Domain:
        """The EIP-712 domain of requests: chain and contract."""
        return Domain(self._bound.chain_id, self._bound.address)

    def nonce(self, organisation: Address) -> int:
        """The nonce of an organisation's next request."""
        return int(self._bound.call("nonces", organisation, purpose=f"the nonce of {organisation}"))

    def read(self, organisation: Address) -> RegisteredOrganisation | None:
        """An organisation's registration, or None."""
        node_key, registered_at, revoked_at = self._bound.call(
            "getOrganisation", organisation, purpose=f"the registration of {organisation}"
        )
        return RegisteredOrganisation(to_digest(node_key), registered_at, revoked_at) if registered_at else None

    def register(self, request: MembershipRequest) -> RegisteredOrganisation:
        """Submit a request; submitting it again changes nothing.

        Raises UsageError for a request for another contract, LedgerConflictError when the contract refuses it: expired,
        signed by another, revoked.
        """
        if request.domain != self.domain:
            raise UsageError(f"expected a request for {self.domain}, got one for {request.domain}")

        def registered() -> RegisteredOrganisation | None:
            # The contract uses a nonce up with its request, and with no other: it tells ours from an earlier one.
            return self.read(request.organisation) if self.nonce(request.organisation) > request.nonce else None

        return self._bound.execute(
            "register",
            request.organisation,
            raw(request.node_key),
            request.deadline,
            bytes.fromhex(request.signature[2:]),
            effect=registered,
            purpose=f"registering {request.organisation}",
        )

    def revoke(self, organisation: Address) -> RegisteredOrganisation:
        """End an organisation's registration for good; repeating it changes nothing.

        Raises LedgerConflictError when it was never registered or the key is not the administrator's.
        """

        def revoked() -> RegisteredOrganisation | None:
            known = self.read(organisation)
            return known if known and known.revoked_at else None

        return self._bound.execute(
            "revokeOrganisation", organisation, effect=revoked, purpose=f"revoking {organisation}"
        )
