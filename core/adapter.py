"""AdapterState: the named float arrays of a LoRA adapter, or of a delta.

The canonical bytes are a safetensors file that any safetensors reader opens: tensors sorted by name, data packed
in that order, a compact header padded with spaces to a multiple of eight. Reading is strict: bytes that are not
the canonical form of what they contain are refused, so one value has one digest.

Names are `<module path in the base model>.lora_A` (rank × in) and `.lora_B` (out × rank).
"""

import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.canonical import Digest, digest, parse_json
from core.errors import FormatError

Array = NDArray[np.floating]
LONGEST_HEADER = 4 * 2**20
"""Bytes; a model with 10,000 adapted modules needs half of it."""
_DTYPES: dict[str, np.dtype[np.floating]] = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4"), "F64": np.dtype("<f8")}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


@dataclass(frozen=True, eq=False)
class AdapterState:
    """Arrays by name, read-only and sorted; equal when their digests are equal."""

    arrays: Mapping[str, Array]

    def __post_init__(self) -> None:
        """Sort, freeze and check; raises FormatError for a dtype that is not f16, f32 or f64."""
        frozen = {name: _frozen(name, self.arrays[name]) for name in sorted(self.arrays)}
        object.__setattr__(self, "arrays", MappingProxyType(frozen))

    @cached_property
    def digest(self) -> Digest:
        """SHA-256 under the tag ``foedus/adapter/v1``; binds names, dtypes, shapes and bytes."""
        return digest("adapter", *self.parts())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AdapterState) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __getitem__(self, name: str) -> Array:
        return self.arrays[name]

    @cached_property
    def norm(self) -> float:
        """The L2 norm of all its numbers."""
        wide = (array.astype(np.float64) for array in self.arrays.values())
        return math.sqrt(sum(float(np.vdot(array, array)) for array in wide))

    def dot(self, other: "AdapterState") -> float:
        """The inner product with a state of the same arrays, in float64: squares of finite float32 may overflow."""
        pairs = ((array, other[name]) for name, array in self.arrays.items())
        return sum(float(np.vdot(one.astype(np.float64), two.astype(np.float64))) for one, two in pairs)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every array, by name."""
        return {name: array.shape for name, array in self.arrays.items()}

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays, without the header."""
        return sum(array.nbytes for array in self.arrays.values())

    def parts(self) -> Iterator[bytes | memoryview]:
        """The canonical safetensors file piece by piece, without copying the arrays."""
        yield _header(self.arrays)
        for array in self.arrays.values():
            yield array.reshape(-1).view(np.uint8).data

    def to_bytes(self) -> bytes:
        """The canonical safetensors file; ``AdapterState.from_bytes(s.to_bytes()) == s``."""
        return b"".join(self.parts())

    @classmethod
    def from_bytes(cls, data: bytes | memoryview, longest_header: int = LONGEST_HEADER) -> "AdapterState":
        """Parse canonical bytes without copying them; raises FormatError for any other bytes.

        A header is at most `longest_header` bytes: parsing it takes many times its size.
        """
        view = memoryview(data)
        entries, start = _entries(view, longest_header)
        try:
            arrays = {name: _array(entry, view[start:]) for name, entry in entries.items()}
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"malformed safetensors entry: {error}") from error
        state = cls(arrays)
        # Gaps, overlaps, other orders of keys and trailing bytes all change the header or the length.
        if _header(state.arrays) != bytes(view[:start]) or start + state.nbytes != len(view):
            raise FormatError("safetensors file is not in canonical form")
        return state


def _frozen(name: str, array: Array) -> Array:
    if array.dtype not in _NAMES:
        raise FormatError(f"{name}: dtype {array.dtype} is not one of {', '.join(_DTYPES)}")
    view = np.ascontiguousarray(array).reshape(array.shape).view()
    # A view of an array that somebody else may hold: only this one is frozen.
    view.flags.writeable = False
    return view


def _header(arrays: Mapping[str, Array]) -> bytes:
    entries, end = {}, 0
    for name, array in arrays.items():
        start, end = end, end + array.nbytes
        entries[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(entries, separators=(",", ":")).encode("ascii")
    # The safetensors library pads with spaces to 8 bytes, so that arrays start aligned.
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _entries(view: memoryview, longest: int) -> tuple[dict[str, dict[str, Any]], int]:
    if len(view) < 8:
        raise FormatError(f"safetensors file: expected at least 8 bytes, got {len(view)}")
    (length,) = struct.unpack("<Q", view[:8])
    if length > len(view) - 8:
        raise FormatError(f"safetensors header of {length} bytes in a file of {len(view)}")
    if length > longest:
        raise FormatError(f"safetensors header: expected at most {longest} bytes, got {length}")
    entries = parse_json(bytes(view[8 : 8 + length]))
    if not isinstance(entries, dict):
        raise FormatError("safetensors header is not an object")
    return entries, 8 + length


def _array(entry: dict[str, Any], data: memoryview) -> Array:
    start, end = entry["data_offsets"]
    dtype: np.dtype[np.floating] = _DTYPES[entry["dtype"]]
    # A shape that does not fit its bytes is refused here by NumPy, with TypeError or ValueError.
    return np.ndarray(tuple(entry["shape"]), dtype, buffer=data[start:end])
