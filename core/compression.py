"""Compression: numbers in float32 as fewer bytes, and back to the same numbers on every machine.

    form    a block  bytes of n numbers, in this order; integers little-endian, two codes a byte, the first one low
    bf16    -        the upper half of each number
    int8    64       of each block its scale s, the upper half of a float32; of each number c from −127 to 127: c s
    nf4     64       `top`; of each block a code of its scale s; of each number c from 0 to 15: NF4[c] s
    sparse  256      `top`; of each block a code of s, and its count; of each number kept its place in its block, and
                     c from 0 to 15: ± (1 + c mod 8) s / 8, negative from 8 on. The largest 16 of a block are kept

NF4 are the levels of Dettmers et al. (2023, arXiv 2305.14314). A scale with a code has five significant bits: q is the
twelve bits of a positive float32 from its exponent down to the fourth of its fraction; `top` (two bytes) is the largest
q of all blocks, a code is q − top + 255, and 0 of blocks of zeros, and of those 16 binades below the largest.

Encoding what was decoded gives the same bytes, since the largest of a block keeps its code and then gives the same
scale; so bytes that are not what encoding gives are refused. Rounding is IEEE's division and the nearest level, and
decoding one product of two float32, which is rounded alike with any instruction set. Places are ordered by size, then
by number: what is kept depends on no sort's way with equal numbers.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from core.errors import FormatError

Float32 = NDArray[np.float32]
Bytes = NDArray[np.uint8]

LARGEST_EXPONENT = 100
"""Below this power of two products with a level are finite, and above its inverse normal: rounded alike anywhere."""
BLOCK = 64
SPARSE_BLOCK, KEPT = 256, 16
"""Numbers in a block of the form sparse, and how many of them are kept."""
NF4 = np.array(
    [
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
        -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
        0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ],
    np.float32,
)  # fmt: skip
_MIDDLES = (NF4[1:] + NF4[:-1]) / np.float32(2)
_NO_CODES = np.empty(0, np.uint8)
_PIECE = 4096
_LEAST = np.float32(2.0**-100)
_LOWEST_TOP, _HIGHEST_TOP = ((exponent + 127) << 4 for exponent in (-100, 100))
_LOWEST_SCALE, _HIGHEST_SCALE = ((exponent + 127) << 7 for exponent in (-110, 100))


class NumberForm(Protocol):
    """How numbers are written."""

    def encode(self, numbers: Float32) -> bytes:
        """The bytes of these numbers, finite and of moderate size (`checked`)."""
        ...

    def decode(self, data: Bytes, count: int) -> Float32:
        """So many numbers; raises FormatError for bytes that are too many, too few, or no scales."""
        ...

    def most(self, count: int) -> int:
        """The most bytes that so many numbers take."""
        ...


def checked(numbers: Float32, exponent: int = LARGEST_EXPONENT) -> Float32:
    """The same numbers; raises FormatError unless all are finite, and below a power of two."""
    # A comparison with NaN is false, so it is found too.
    if not (np.abs(numbers) < np.float32(2.0**exponent)).all():
        raise FormatError(f"compression: expected finite numbers below 2^{exponent}, got NaN, Inf or larger ones")
    return numbers


class Bf16:
    """The upper half of each number, rounded to the nearest, of two to the even one."""

    def encode(self, numbers: Float32) -> bytes:
        """Two bytes a number."""
        return _upper_half(numbers).astype("<u2").tobytes()

    def decode(self, data: Bytes, count: int) -> Float32:
        """As `NumberForm.decode`."""
        return _from_upper_half(_parts(data, 2 * count)[0])

    def most(self, count: int) -> int:
        """Two bytes a number."""
        return 2 * count


class Int8:
    """Integers of a byte, with a scale for each block."""

    def encode(self, numbers: Float32) -> bytes:
        """A scale and the integers of each block."""
        blocks = _blocks(numbers, BLOCK)
        steps = _peaks(blocks) / np.float32(127)
        steps[steps < np.float32(2.0**-110)] = 0
        halves = _upper_half(steps)
        scales = _from_upper_half(halves.view(np.uint8))
        codes = np.clip(np.rint(_quotients(blocks, scales)), -127, 127).astype(np.int8)
        return halves.astype("<u2").tobytes() + codes.reshape(-1)[: numbers.size].tobytes()

    def decode(self, data: Bytes, count: int) -> Float32:
        """As `NumberForm.decode`."""
        blocks = -(-count // BLOCK)
        halves, codes = _parts(data, 2 * blocks, count)
        bits = halves.view("<u2")
        if ((bits != 0) & ((bits < _LOWEST_SCALE) | (bits > _HIGHEST_SCALE))).any():
            raise FormatError("int8: expected scales that are 0, or from 2^-110 to 2^100, got another")
        return _scaled(codes.view(np.int8).astype(np.float32), _from_upper_half(halves), BLOCK)

    def most(self, count: int) -> int:
        """A byte a number and two a block."""
        return count + 2 * -(-count // BLOCK)


class Nf4:
    """One of sixteen levels a number, with the code of a scale for each block."""

    def encode(self, numbers: Float32) -> bytes:
        """The scales and the levels."""
        blocks = _blocks(numbers, BLOCK)
        written, scales = _write_scales(_peaks(blocks))
        levels = [np.searchsorted(_MIDDLES, _quotients(*p)).astype(np.uint8) for p in _pieces(blocks, scales)]
        return written + _nibbles(np.concatenate([_NO_CODES, *map(np.ravel, levels)])[: numbers.size])

    def decode(self, data: Bytes, count: int) -> Float32:
        """As `NumberForm.decode`."""
        top, codes, halves = _parts(data, 2, -(-count // BLOCK), -(-count // 2))
        return _scaled(NF4[_from_nibbles(halves, count)], _read_scales(top, codes), BLOCK)

    def most(self, count: int) -> int:
        """Half a byte a number, one a block, and two."""
        return 2 + -(-count // BLOCK) + -(-count // 2)


class Sparse:
    """The largest numbers of each block, each with its place and one of sixteen levels; the others are 0."""

    def encode(self, numbers: Float32) -> bytes:
        """The scales, and the numbers that are kept."""
        blocks = _blocks(numbers, SPARSE_BLOCK)
        written, scales = _write_scales(_peaks(blocks))
        kept = [_largest(*piece) for piece in _pieces(blocks, scales)]
        counts, places, codes = (np.concatenate([_NO_CODES, *(found[i] for found in kept)]) for i in range(3))
        return b"".join((written, counts.tobytes(), places.tobytes(), _nibbles(codes)))

    def decode(self, data: Bytes, count: int) -> Float32:
        """As `NumberForm.decode`."""
        blocks = -(-count // SPARSE_BLOCK)
        if data.size < 2 + 2 * blocks:
            raise FormatError(f"sparse: expected at least {2 + 2 * blocks} bytes, got {data.size}")
        counts = data[2 + blocks : 2 + 2 * blocks]
        total = int(counts.sum(dtype=np.int64))
        top, codes, _, places, halves = _parts(data, 2, blocks, blocks, total, -(-total // 2))
        levels = _from_nibbles(halves, total)
        values = (levels & 7).astype(np.float32) + np.float32(1)
        values[levels > 7] *= np.float32(-1)
        steps = np.repeat(_read_scales(top, codes) / np.float32(8), counts)
        found = np.zeros(blocks * SPARSE_BLOCK, np.float32)
        found[np.repeat(np.arange(blocks) * SPARSE_BLOCK, counts) + places] = values * steps
        return found[:count]

    def most(self, count: int) -> int:
        """Two bytes a block, one and a half a number that is kept, and two."""
        kept = KEPT * -(-count // SPARSE_BLOCK)
        return 2 + 2 * -(-count // SPARSE_BLOCK) + kept + -(-kept // 2)


FORMS: Mapping[str, NumberForm] = {"bf16": Bf16(), "int8": Int8(), "nf4": Nf4(), "sparse": Sparse()}
"""Every form but fp32, which compresses nothing."""


def _parts(data: Bytes, *sizes: int) -> list[Bytes]:
    """Data cut into parts of these sizes; raises FormatError unless they are all of it."""
    if data.size != sum(sizes):
        raise FormatError(f"compressed numbers: expected {sum(sizes)} bytes, got {data.size}")
    return np.split(data, np.cumsum(sizes)[:-1])


def _blocks(numbers: Float32, size: int) -> Float32:
    """Numbers as rows of a block each, the last one with zeros behind them."""
    padded = np.zeros(-(-numbers.size // size) * size, np.float32)
    padded[: numbers.size] = numbers
    return padded.reshape(-1, size)


def _peaks(blocks: Float32) -> Float32:
    """The largest magnitude of each block."""
    peaks: Float32 = np.maximum(blocks.max(axis=1, initial=0), -blocks.min(axis=1, initial=0))
    return peaks


def _pieces(blocks: Float32, scales: Float32) -> Iterator[tuple[Float32, Float32]]:
    """Some thousand blocks at a time with their scales: what is computed on the way takes many times their memory."""
    for start in range(0, len(blocks), _PIECE):
        yield blocks[start : start + _PIECE], scales[start : start + _PIECE]


def _largest(blocks: Float32, scales: Float32) -> tuple[Bytes, Bytes, Bytes]:
    """Of the largest numbers of each block how many are kept, their places and their codes."""
    sizes = np.abs(blocks)
    # Bits of positive floats stand in order of size; with the place behind them no two are equal.
    order = sizes.view(np.int32).astype(np.int64) << 8 | np.arange(SPARSE_BLOCK - 1, -1, -1)
    least = np.partition(order, SPARSE_BLOCK - KEPT, axis=1)[:, SPARSE_BLOCK - KEPT, None]
    levels = np.minimum(np.rint(_quotients(sizes, scales / np.float32(8))), 8).astype(np.uint8)
    kept = (order >= least) & (levels > 0)
    signs = (blocks[kept] < 0).astype(np.uint8) << 3
    codes: Bytes = (levels[kept] - 1 | signs).astype(np.uint8)
    return kept.sum(axis=1, dtype=np.uint8), np.nonzero(kept)[1].astype(np.uint8), codes


def _quotients(blocks: Float32, scales: Float32) -> Float32:
    """Every number by its block's scale; 0 where that is 0."""
    quotients: Float32 = np.divide(blocks, scales[:, None], where=scales[:, None] > 0, out=np.zeros_like(blocks))
    return quotients


def _scaled(levels: Float32, scales: Float32, size: int) -> Float32:
    """Every number times its block's scale."""
    levels *= np.repeat(scales, size)[: levels.size]
    return levels


def _upper_half(numbers: Float32) -> NDArray[np.uint16]:
    """The upper half of each number's bits, rounded to the nearest, of two to the even one."""
    bits = numbers.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def _from_upper_half(halves: Bytes) -> Float32:
    """The numbers of which these bytes are the upper halves."""
    numbers: Float32 = (halves.view("<u2").astype(np.uint32) << 16).view(np.float32)
    return numbers


def _write_scales(peaks: Float32) -> tuple[bytes, Float32]:
    """`top` and the code of every block, by its largest number, and the scales that they stand for."""
    bits = np.where(peaks < _LEAST, np.float32(0), peaks).view(np.uint32)
    rounded = ((bits + 0x3FFFF + (bits >> 19 & 1)) >> 19).astype(np.int32)
    top = rounded.max(initial=0)
    codes = np.maximum(rounded - top + 255, 0) * (rounded > 0)
    written = np.array([top], "<u2").view(np.uint8), codes.astype(np.uint8)
    return b"".join(part.tobytes() for part in written), _read_scales(*written)


def _read_scales(top: Bytes, codes: Bytes) -> Float32:
    """The scales of all blocks; raises FormatError for a `top` of numbers too large or too small to be written."""
    highest = int(top.view("<u2")[0])
    if highest and not _LOWEST_TOP <= highest <= _HIGHEST_TOP:
        raise FormatError(f"scales: expected a largest one of 0, or {_LOWEST_TOP} to {_HIGHEST_TOP}, got {highest}")
    rounded = np.where((codes > 0) & (highest > 0), codes.astype(np.int32) + (highest - 255), 0)
    scales: Float32 = (rounded << 19).astype(np.uint32).view(np.float32)
    return scales


def _nibbles(codes: Bytes) -> bytes:
    """Two codes a byte."""
    even = np.zeros(codes.size + codes.size % 2, np.uint8)
    even[: codes.size] = codes
    return (even[::2] | even[1::2] << 4).tobytes()


def _from_nibbles(halves: Bytes, count: int) -> NDArray[Any]:
    """So many codes."""
    codes = np.empty(2 * halves.size, np.uint8)
    codes[::2], codes[1::2] = halves & 15, halves >> 4
    return codes[:count]
