"""Wire: the bytes in which adapter states travel and are stored, one form each way of a federation's messages.

    setting   an update, on the way up   a lane's state, on the way down
    fp32      fp32                       fp32
    bf16      bf16                       bf16
    int8      int8                       int8
    nf4       nf4                        nf4
    sparse    sparse                     nf4

fp32 is the canonical safetensors file (core/adapter.py). The others are, little-endian:

    7 bytes   "FOEDUS" and the version 1: no file begins so whose first eight bytes are a safetensors header's length
    1 byte    the form: 1 bf16, 2 int8, 3 nf4, 4 sparse
    4 bytes   N, the length of the header
    N bytes   header, one entry a tensor in order of name: how many characters it shares with the name before, how many
              follow (a byte each), these in ASCII, rows and columns (four bytes each)
    the rest  the numbers of all tensors, row by row, compressed as one sequence (core/compression.py)

What a manifest signs is the digest of these bytes, and what is stored are they; the update is what decoding gives. One
state has one spelling in a form: bytes that encoding does not give are refused.
"""

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate, takewhile
from types import MappingProxyType
from typing import NamedTuple, Self

import numpy as np

from core.adapter import LONGEST_HEADER, AdapterState
from core.canonical import ZERO_DIGEST, Digest, digest
from core.compression import FORMS, LARGEST_EXPONENT, Float32, checked
from core.errors import FormatError

DOWN: Mapping[str, str] = MappingProxyType(
    {"fp32": "fp32", "bf16": "bf16", "int8": "int8", "nf4": "nf4", "sparse": "nf4"}
)
"""Every setting, which is the form of updates, with the form in which a lane's state is sent out."""
MOST_NUMBERS = 2**29
"""What a state may have at most, in whatever form: few bytes may say that they are many numbers."""
_MAGIC = b"FOEDUS\x01"
_CODES = dict(enumerate(FORMS, 1))
_START = len(_MAGIC) + 1 + 4
_SHAPE = struct.Struct("<II")


@dataclass(frozen=True, eq=False)
class Packed:
    """A state in the bytes in which it travels; nothing of it is read before it is asked for.

    Reading raises FormatError: for another form than the known ones, and for bytes that are not canonical. A header is
    at most `longest_header` bytes, and names at most `most_numbers`.
    """

    data: bytes | memoryview
    longest_header: int = LONGEST_HEADER
    most_numbers: int = MOST_NUMBERS

    @classmethod
    def of(cls, state: AdapterState, form: str) -> Self:
        """A state in a form; raises FormatError where it cannot be written so."""
        return cls(state.to_bytes() if form == "fp32" else _encoded(state, form))

    @cached_property
    def digest(self) -> Digest:
        """SHA-256 of the bytes under ``foedus/adapter/v1``: in fp32 the state's own."""
        return digest("adapter", self.data)

    @property
    def form(self) -> str:
        """Its form."""
        if bytes(self.data[: len(_MAGIC)]) != _MAGIC:
            return "fp32"
        code = self.data[len(_MAGIC)] if len(self.data) > len(_MAGIC) else 0
        if code not in _CODES:
            raise FormatError(f"wire: expected a form from 1 to {len(_CODES)}, got {code}")
        return _CODES[code]

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every array, by name; of a compressed state its header alone is read."""
        return self.state.shapes if self.form == "fp32" else self._header[0]

    @cached_property
    def state(self) -> AdapterState:
        """The state that the bytes stand for."""
        if (form := self.form) == "fp32":
            return AdapterState.from_bytes(self.data, self.longest_header)
        shapes, start = self._header
        sizes = [math.prod(shape) for shape in shapes.values()]
        numbers = FORMS[form].decode(np.frombuffer(self.data, np.uint8)[start:], sum(sizes))
        ends = accumulate(sizes)
        found = {
            name: numbers[end - size : end].reshape(shape)
            for (name, shape), size, end in zip(shapes.items(), sizes, ends, strict=True)
        }
        state = AdapterState(found)
        # Other scales, other codes for the same number, places twice or out of order: all are seen at once.
        # Rounded, the largest numbers that can be written are a little larger.
        if _encoded(state, form, LARGEST_EXPONENT + 1) != self.data:
            raise FormatError(f"{form}: expected the canonical form of an update, got other bytes")
        return state

    def parts(self) -> Iterator[bytes | memoryview]:
        """The bytes, as `AdapterState.parts` has them."""
        yield self.data

    @cached_property
    def _header(self) -> tuple[dict[str, tuple[int, ...]], int]:
        """The shape of every array, and where the numbers begin."""
        view = memoryview(self.data)
        length = int.from_bytes(view[_START - 4 : _START], "little")
        if length > min(self.longest_header, len(view) - _START):
            raise FormatError(f"wire: expected a header of at most {self.longest_header} bytes, got {length}")
        try:
            shapes = dict(_entries(bytes(view[_START : _START + length])))
        except (IndexError, UnicodeDecodeError, struct.error) as error:
            raise FormatError(f"wire: malformed header: {error}") from error
        if (numbers := numbers_of(shapes)) > self.most_numbers:
            raise FormatError(f"wire: expected at most {self.most_numbers} numbers, got {numbers}")
        return shapes, _START + length


Travelling = AdapterState | Packed
"""What has a digest and bytes to travel in."""


# A round sends the same state to everyone whom it asks.
@lru_cache(maxsize=2)
def to_send(state: AdapterState, wire: str) -> Packed:
    """A lane's state as it travels down under a setting, and as it is trained from."""
    return Packed.of(state, DOWN[wire])


class Rounded(NamedTuple):
    """What a record says of its state Q(B) as it is sent: its digest, and ‖Q(B) − B‖ / ‖B‖, 0 of a state of zeros."""

    rounded: Digest
    rounding: float

    @classmethod
    def of(cls, state: AdapterState, wire: str) -> Self:
        """A state as it is sent under a setting; zero and 0 where it is sent as it is."""
        if DOWN[wire] == "fp32":
            return cls(ZERO_DIGEST, 0.0)
        sent = to_send(state, wire).state
        lost = AdapterState({name: array.astype(np.float64) - sent[name] for name, array in state.arrays.items()})
        return cls(sent.digest, lost.norm / state.norm if state.norm else 0.0)


def numbers_of(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """How many numbers arrays of these shapes have."""
    return sum(math.prod(shape) for shape in shapes.values())


def most_bytes(shapes: Mapping[str, tuple[int, ...]], form: str) -> int:
    """The most bytes that numbers of these shapes take in a form, without the header."""
    count = numbers_of(shapes)
    return 4 * count if form == "fp32" else FORMS[form].most(count)


def _encoded(state: AdapterState, form: str, exponent: int = LARGEST_EXPONENT) -> bytes:
    """The bytes of a state, whose numbers are below a power of two, in a form that compresses."""
    if odd := [name for name, array in state.arrays.items() if array.dtype != np.float32 or array.ndim != 2]:
        raise FormatError(f"{form}: expected matrices of float32, got {odd[0]!r} of {state[odd[0]].dtype}")
    header = b"".join(_header_parts(state.shapes))
    numbers: Float32 = np.concatenate([array.reshape(-1) for array in state.arrays.values()] or [np.empty(0, "<f4")])
    code = {name: code for code, name in _CODES.items()}[form]
    start = _MAGIC + bytes([code]) + len(header).to_bytes(4, "little")
    return start + header + FORMS[form].encode(checked(numbers, exponent))


def _header_parts(shapes: Mapping[str, Sequence[int]]) -> Iterator[bytes]:
    before = ""
    for name, shape in shapes.items():
        alike = takewhile(lambda pair: pair[0] == pair[1], zip(before, name, strict=False))
        shared = min(len(list(alike)), 255)
        rest = name[shared:]
        if not name.isascii() or len(rest) > 255:
            raise FormatError(f"wire: expected ASCII names with at most 255 characters, got {name!r:.140}")
        yield bytes([shared, len(rest)]) + rest.encode() + _SHAPE.pack(*shape)
        before = name


def _entries(header: bytes) -> Iterator[tuple[str, tuple[int, ...]]]:
    name, at = "", 0
    while at < len(header):
        shared, more = header[at], header[at + 1]
        name = name[:shared] + header[at + 2 : at + 2 + more].decode("ascii")
        at += 2 + more
        yield name, _SHAPE.unpack_from(header, at)
        at += _SHAPE.size
