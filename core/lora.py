"""An adapter before any training: A orthonormal, B zero.

A is drawn from a seed so that it is the same bits on every machine and never needs to be sent: signs from SHAKE-256,
Gram–Schmidt with exactly rounded sums (`math.fsum`), and nothing but +, ×, ÷ and √, which IEEE 754 rounds the same
way everywhere.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from core.adapter import AdapterState, Array
from core.canonical import domain
from core.errors import ConfigError

Vector = NDArray[np.float64]

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
    for name, inputs, outputs in layout.modules:
        arrays[f"{name}.lora_A"] = _orthonormal(domain("lora-a") + seed + name.encode(), layout.rank, inputs)
        arrays[f"{name}.lora_B"] = np.zeros((outputs, layout.rank), np.float32)
    return AdapterState(arrays)


def factor(adapter: AdapterState, which: str) -> AdapterState:
    """Only the "A" or only the "B" of every module."""
    return AdapterState({name: array for name, array in adapter.arrays.items() if name.endswith(f".lora_{which}")})


def _orthonormal(seed: bytes, rows: int, columns: int) -> NDArray[np.float32]:
    drawn = rows
    while len(basis := _basis(_signs(seed, drawn, columns))) < rows:
        drawn *= 2
    return np.stack(basis[:rows]).astype(np.float32)


def _signs(seed: bytes, rows: int, columns: int) -> NDArray[np.float64]:
    bits = np.frombuffer(hashlib.shake_256(seed).digest(-(-rows * columns // 8)), np.uint8)
    return np.unpackbits(bits)[: rows * columns].reshape(rows, columns).astype(np.float64) * 2.0 - 1.0


def _basis(rows: NDArray[np.float64]) -> list[Vector]:
    """Unit vectors by Gram–Schmidt; a row that depends on those before it, as happens in narrow layers, is left out."""
    basis: list[Vector] = []
    for row in rows:
        vector = row.copy()
        for _ in range(2):  # twice is enough (Kahan): the second pass removes what rounding left
            for unit in basis:
                vector -= math.fsum(vector * unit) * unit
        length = math.sqrt(math.fsum(vector * vector))
        if length > _DEPENDENT * math.sqrt(len(row)):
            basis.append(vector / length)
    return basis
