"""A request of an organisation to be registered with a contract, signed by itself: made and read without a chain.

It is EIP-712, bound to one chain and one contract, and good once: it carries the organisation's nonce and a deadline.
"""

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key
from eth_hash.auto import keccak

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
    return Digest("0x" + bytes(keccak(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))).hex())
