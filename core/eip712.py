"""Hashes of flat structs by EIP-712, as wallets and contracts compute them.

The libraries for it import half a second of others, and hash a type and a domain anew for every statement: of an audit,
which verifies thousands of one type, that was a tenth.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from eth_hash.auto import keccak

from core.errors import FormatError

Fields = tuple[tuple[str, str], ...]
"""A struct's fields: (name, Solidity type) in order."""

_WORD = 32
_BITS = {"address": 160, "bool": 8}
"""Of the numbers that have another name."""


def struct_hash(name: str, fields: Fields, message: Mapping[str, Any]) -> bytes:
    """The hash of a struct with these values, those of other names left out.

    Types are uintN, address, bool, bytes32, bytes, string, and arrays of them. Raises FormatError, AttributeError,
    KeyError, TypeError, ValueError or OverflowError for a value that is missing or none of its type's.
    """
    return _keccak(_type_hash(name, fields) + b"".join(_word(kind, message[field]) for field, kind in fields))


@lru_cache(maxsize=256)
def _type_hash(name: str, fields: Fields) -> bytes:
    return _keccak(f"{name}({','.join(f'{kind} {field}' for field, kind in fields)})".encode())


def _word(kind: str, value: Any) -> bytes:
    """A value as 32 bytes: a number itself, what is longer by its hash."""
    if kind.endswith("[]"):
        return _keccak(b"".join(_word(kind.removesuffix("[]"), item) for item in value))
    if kind in ("string", "bytes"):
        return _keccak(value.encode("utf-8") if kind == "string" else value)
    if kind == "bytes32":
        if len(value) != _WORD:
            raise FormatError(f"bytes32: expected {_WORD} bytes, got {len(value)}")
        return bytes(value)
    # Within its own width: a uint32 of 2³² is none.
    bits = _BITS.get(kind) or int(kind.removeprefix("uint"))
    return int.to_bytes(int(value, 16) if kind == "address" else value, bits // 8, "big").rjust(_WORD, b"\0")


def _keccak(data: bytes) -> bytes:
    hashed: bytes = keccak(data)
    return hashed
