"""An adapter before any training: A orthonormal, B zero.

A is drawn from a seed so that it is the same bits on every machine and never needs to be sent: signs from SHAKE-256,
Gram–Schmidt with exactly rounded sums, and nothing but +, ×, ÷ and √, which IEEE 754 rounds the same
way everywhere.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from core.adapter import AdapterState, Array
from core.canonical import domain
from core.errors import ConfigError

Float64 = NDArray[np.float64]

_TOGETHER = 32
"""Modules of one width that are drawn at once: one by one they took a tenth of a short run."""
_DEPENDENT = 1e-6
"""What is left of a row, relative to its length, when all of it but rounding was in the span of the others."""


@dataclass(frozen=True)
class Layout:
    """The modules that carry an adapter: name, inputs, outputs, in order of name; and the adapter's rank."""

    modules: tuple[tuple[str, int, int], ...]
    rank: int

    @classmethod
    def of(cls, modules: Mapping[str, tuple[int, int]], rank: int) -> "Layout":
        """From a mapping of name to (in features, out features).

        Raises ConfigError when the rank is not between 1 and every layer's smaller side.
        """
        for name, (inputs, outputs) in modules.items():
            if not 1 <= rank <= min(inputs, outputs):
                raise ConfigError(f"rank: expected 1 to the smaller side of {name} ({outputs} × {inputs}), got {rank}")
        return cls(tuple((name, *modules[name]) for name in sorted(modules)), rank)


@lru_cache(maxsize=4)
def fresh(layout: Layout, seed: bytes) -> AdapterState:
    """A (rank × in, orthonormal rows) and B = 0 (out × rank) of every module, float32."""
    arrays: dict[str, Array] = {}
    seeds, widths = dict[str, bytes](), dict[int, list[str]]()
    for name, inputs, outputs in layout.modules:
        seeds[name] = domain("lora-a") + seed + name.encode()
        widths.setdefault(inputs, []).append(name)
        arrays[f"{name}.lora_B"] = np.zeros((outputs, layout.rank), np.float32)
    for width, names in widths.items():
        for start in range(0, len(names), _TOGETHER):
            some = names[start : start + _TOGETHER]
            drawn = _orthonormal([seeds[name] for name in some], layout.rank, width)
            arrays |= {f"{name}.lora_A": array for name, array in zip(some, drawn, strict=True)}
    return AdapterState(arrays)


def factor(adapter: AdapterState, which: str) -> AdapterState:
    """Only the "A" or only the "B" of every module."""
    return AdapterState({name: array for name, array in adapter.arrays.items() if name.endswith(f".lora_{which}")})


def _orthonormal(seeds: list[bytes], rows: int, columns: int) -> Iterator[NDArray[np.float32]]:
    """Orthonormal rows for each seed."""
    found = _bases(np.stack([_signs(seed, rows, columns) for seed in seeds]))
    for seed, basis in zip(seeds, found, strict=True):
        drawn = rows
        while len(basis) < rows:
            drawn *= 2
            basis = _bases(_signs(seed, drawn, columns)[np.newaxis])[0]  # noqa: PLW2901 - drawn again
        yield np.stack(basis[:rows]).astype(np.float32)


def _signs(seed: bytes, rows: int, columns: int) -> Float64:
    bits = np.frombuffer(hashlib.shake_256(seed).digest(-(-rows * columns // 8)), np.uint8)
    return np.unpackbits(bits)[: rows * columns].reshape(rows, columns).astype(np.float64) * 2.0 - 1.0


def _bases(rows: Float64) -> list[list[Float64]]:
    """Unit vectors of each of several matrices (n, rows, columns) by Gram–Schmidt.

    A row that depends on those before it, as happens in narrow layers, is left out.
    """
    units: list[Float64] = []
    for row in np.swapaxes(rows, 0, 1):
        vectors = row.copy()
        for _ in range(2):  # twice is enough (Kahan): the second pass removes what rounding left
            for unit in units:
                vectors -= _sums(vectors * unit) * unit
        lengths = np.sqrt(_sums(vectors * vectors))
        kept = lengths > _DEPENDENT * math.sqrt(rows.shape[2])
        # A row that is left out stays as zeros, which take nothing from those behind it.
        units.append(np.where(kept, vectors / np.where(kept, lengths, 1.0), 0.0))
    return [[unit[index] for unit in units if unit[index].any()] for index in range(len(rows))]


def _sums(terms: Float64) -> Float64:
    """The sum of each row, rounded once as `math.fsum` rounds it: (n, 1).

    What is left of a number when a power of two is added and taken away again is a multiple of one unit for all; so few
    such multiples add up exactly, in any order (Rump, Ogita and Oishi, 2008). The rest is summed likewise.
    """
    parts = [np.zeros(len(terms))]
    while largest := float(np.abs(terms).max(initial=0.0)):
        power = math.ldexp(1.0, math.frexp(largest)[1] + terms.shape[1].bit_length())
        high = terms + power
        high -= power
        parts.append(high.sum(axis=1))
        terms = terms - high
    return np.array([[math.fsum(some)] for some in zip(*parts, strict=True)])
