"""A request of an organisation to be registered with a contract, signed by itself: made and read without a chain.

It is EIP-712, bound to one chain and one contract, and good once: it carries the organisation's nonce and a deadline.
"""

import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key
from eth_hash.auto import keccak

from core.canonical import Address, Digest, from_json, raw, to_json
from core.eip712 import Fields
from core.errors import ForgeryError, FormatError, UsageError
from core.keys import Domain, Key, Signature, signer
from core.parsing import parsed

_SIGNATURE: Final = re.compile(r"0x[0-9a-f]{130}")
_STRUCT: Final = "Membership"
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
        return cls.of(from_json(data))

    @classmethod
    def of(cls, value: Any) -> Self:
        """From plain data; raises FormatError."""
        request = parsed(cls, value, {"domain": lambda value: parsed(Domain, value, {})})
        if not _SIGNATURE.fullmatch(str(request.signature)):
            raise FormatError(f"membership request: expected a signature of 65 bytes in hex, got {request.signature!r}")
        return request

    def verify(self) -> None:
        """Raise ForgeryError unless the organisation signed it, as the contract would find."""
        found = signer(self.signature, self.domain, _STRUCT, _MEMBERSHIP, self.message())
        if found != self.organisation:
            raise ForgeryError(f"membership request: expected the signature of {self.organisation}, got {found}'s")

    def message(self) -> dict[str, Any]:
        """What is signed."""
        return {
            "organisation": self.organisation,
            "nodeKey": raw(self.node_key),
            "nonce": self.nonce,
            "deadline": self.deadline,
        }


def request_membership(key: Key, domain: Domain, node_key: Digest, nonce: int, deadline: int) -> MembershipRequest:
    """The request of the organisation that owns `key`; `nonce` as `Registry.nonce` says, 0 for the first."""
    unsigned = MembershipRequest(domain, key.address, node_key, nonce, deadline, Signature(""))
    return replace(unsigned, signature=key.sign(domain, _STRUCT, _MEMBERSHIP, unsigned.message()))


def digest_of_node_key(path: Path) -> Digest:
    """`digest_of_public_key` of a file; raises UsageError for a file that holds none."""
    try:
        return digest_of_public_key(path.read_bytes())
    except (OSError, FormatError) as error:
        raise UsageError(f"expected an OpenSSH public key in {path}, got: {error}") from error


def digest_of_public_key(line: bytes) -> Digest:
    """keccak256 of a SuperNode's public key (OpenSSH's form, as for Flower), in DER as SubjectPublicKeyInfo.

    Raises FormatError for what is no such key.
    """
    try:
        key = load_ssh_public_key(line)
    except (ValueError, UnsupportedAlgorithm, NotImplementedError) as error:  # the last for a compressed point
        raise FormatError(f"node key: expected an OpenSSH public key, got {error}") from error
    if not isinstance(key, EllipticCurvePublicKey):
        raise FormatError(f"node key: expected one of an elliptic curve, as Flower asks for, got {type(key).__name__}")
    return Digest("0x" + bytes(keccak(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))).hex())
