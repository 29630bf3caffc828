"""Addresses of contracts."""

import rlp
from eth_hash.auto import keccak


def create_address(sender: bytes, nonce: int) -> bytes:
    """The 20-byte address of the contract that `sender` creates with transaction `nonce` (yellow paper, eq. 86)."""
    return bytes(keccak(rlp.encode([sender, nonce]))[12:])
