"""Where a contract comes to stand."""

import rlp
from eth_hash.auto import keccak


def created(sender: bytes, nonce: int) -> bytes:
    """The 20-byte address of the contract that `sender` creates with its transaction `nonce` (yellow paper, eq. 86)."""
    return bytes(keccak(rlp.encode([sender, nonce]))[12:])
