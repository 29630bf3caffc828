"""One canonical byte form and one digest for every noun.

A digest is SHA-256 over a versioned domain tag and the canonical bytes, written ``0x`` + 64 lower-case hex
digits, so that bytes of one noun can never pass for another. Canonical JSON is RFC 8785 (JCS): UTF-8, keys sorted, no
white space, numbers as ECMAScript writes them, finite and exact: ``from_json(to_json(x)) == x``, and ``to_json`` of it
is the same bytes.
"""

import hashlib
import json
import re
from array import array
from collections import Counter
from itertools import accumulate
from json.encoder import encode_basestring
from typing import Any, NewType

import rfc8785
from typing_extensions import Buffer

from core.errors import FormatError

Digest = NewType("Digest", str)
Address = NewType("Address", str)
"""An Ethereum address in EIP-55 form: an organisation's identity everywhere."""

ZERO_DIGEST = Digest("0x" + "00" * 32)

_DIGEST = re.compile(r"0x[0-9a-f]{64}")
_SALT = re.compile(r"[0-9a-f]{64}")
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
LARGEST = 64 * 2**20
"""The most bytes of JSON that are parsed at all; whoever reads a message or a file of a known kind allows less."""
_DEEPEST = 32
_LARGEST_EXACT = 2**53 - 1
_LONGEST_EXACT = len(str(-_LARGEST_EXACT))
_JSON_STRING = re.compile(rb'"(?:[^"\\]++|\\.?+)*+"?', re.DOTALL)
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
"""A bracket that opens is +1 and one that closes −1, as signed bytes."""
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def to_json(value: Any) -> bytes:
    """Canonical JSON of plain data (dict, list, str, int, float, bool, None).

    Raises FormatError for NaN, infinities, integers beyond ±(2^53 − 1), text that is not Unicode, and types that JSON
    does not have.
    """
    try:
        return _text(value).encode()
    except (rfc8785.CanonicalizationError, TypeError, ValueError) as error:
        raise FormatError(f"not representable as canonical JSON: {error}") from error


def _text(value: Any) -> str:
    """Canonical JSON as `rfc8785.dumps` makes it, in a third of its time: records are mostly text and objects."""
    kind = type(value)
    if kind is str:
        return encode_basestring(value)
    if kind is dict:
        # By code points, as UTF-16 sorts ASCII, too.
        names = sorted(value) if "".join(value).isascii() else sorted(value, key=lambda name: name.encode("utf-16be"))
        return "{" + ",".join([f"{encode_basestring(name)}:{_text(value[name])}" for name in names]) + "}"
    if kind is list or kind is tuple:
        return "[" + ",".join([_text(part) for part in value]) + "]"
    if kind is int and -_LARGEST_EXACT <= value <= _LARGEST_EXACT:
        return str(value)
    if kind is float and 1e-4 <= abs(value) < 1e16:  # where ECMAScript and Python both write no exponent
        return repr(value).removesuffix(".0")
    return rfc8785.dumps(value).decode()


def from_json(data: bytes, most: int = LARGEST) -> Any:
    """Parse canonical JSON of at most so many bytes; raises FormatError when `data` is not the canonical form."""
    value = parse_json(data, most)
    if to_json(value) != data:
        raise FormatError("JSON is not in canonical form (RFC 8785)")
    return value


def parse_json(data: bytes, most: int = LARGEST) -> Any:
    """Parse JSON in any form; raises FormatError when it is none, above `most` bytes, or deeper than 32 levels.

    Also for an object with a field twice. The only JSON parser of foreign bytes (a lint rule forbids others). Size and
    depth are looked at first: a parser builds all that it reads, and Python's recurses.
    """
    if len(data) > most:
        raise FormatError(f"JSON: expected at most {most} bytes, got {len(data)}")
    steps = array("b", _JSON_STRING.sub(b"", data).translate(_STEPS, delete=_NO_BRACKETS))
    if (deepest := max(accumulate(steps), default=0)) > _DEEPEST:
        raise FormatError(f"JSON: expected at most {_DEEPEST} levels of nesting, got {deepest}")
    try:
        # Decoded here, since json.loads would take UTF-16 for text, whose brackets the count above does not see.
        return json.loads(data.decode("utf-8"), parse_int=_number, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"not JSON: {error}") from error


def _object(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; one that gives a field twice is refused, since readers differ in which of the two they take."""
    found = dict(fields)
    if len(found) < len(fields):
        repeated, _ = Counter(name for name, _ in fields).most_common(1)[0]
        raise ValueError(f"expected each field once, got {repeated!r:.140} twice")
    return found


def _number(text: str) -> int | float:
    """A number without fraction; beyond ±(2^53 − 1) it is a double, as all numbers of RFC 8785 are."""
    exact = len(text) <= _LONGEST_EXACT and abs(value := int(text)) <= _LARGEST_EXACT
    return value if exact else float(text)


def domain(noun: str) -> bytes:
    r"""The versioned tag that opens every digest of `noun`, for example ``foedus/adapter/v1\\0``."""
    return f"foedus/{noun}/v1\0".encode("ascii")


def digest(noun: str, *parts: Buffer) -> Digest:
    """SHA-256 of the noun's domain tag followed by its canonical bytes, which may come in parts."""
    state = hashlib.sha256(domain(noun))
    for part in parts:
        state.update(part)
    return Digest("0x" + state.hexdigest())


def commitment(salt: bytes, value: Digest) -> Digest:
    """Hiding commitment to a digest: SHA-256(tag ‖ 32-byte salt ‖ 32-byte digest).

    Raises FormatError when the salt is not 32 bytes.
    """
    if len(salt) != 32:
        raise FormatError(f"a salt has 32 bytes, got {len(salt)}")
    return digest("commitment", salt + raw(value))


def salt_bytes(text: object) -> bytes:
    """The 32 bytes behind a salt; raises FormatError when it is not 64 lower-case hex digits."""
    if not isinstance(text, str) or not _SALT.fullmatch(text):
        raise FormatError(f"a salt: expected 64 lower-case hex digits, got {text!r}")
    return bytes.fromhex(text)


def raw(value: Digest) -> bytes:
    """The 32 bytes behind a digest; raises FormatError for anything else."""
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise FormatError(f"a digest is 0x and 64 lower-case hex digits, got {value!r}")
    return bytes.fromhex(value[2:])


def address(value: object) -> Address:
    """The value as an address; raises FormatError when it is not 0x and 40 hex digits."""
    if not isinstance(value, str) or not _ADDRESS.fullmatch(value):
        raise FormatError(f"an address is 0x and 40 hex digits, got {value!r}")
    return Address(value)
