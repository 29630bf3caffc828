"""RoundKey: where a round stands in a federation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from core.canonical import Digest, raw
from core.eip712 import Fields
from core.parsing import parsed

FIELDS: Fields = (("genesis", "bytes32"), ("lane", "uint32"), ("generation", "uint32"), ("round", "uint32"))
"""A RoundKey within an EIP-712 struct."""


@dataclass(frozen=True, order=True)
class RoundKey:
    """Federation (genesis digest), lane, generation (0 until the first erasure) and round (from 1)."""

    genesis: Digest
    lane: int
    generation: int
    round: int

    @property
    def file_name(self) -> str:
        """What files of the round are called, without suffix: in order of lane, generation and round."""
        return f"L{self.lane:04}-G{self.generation:04}-R{self.round:05}"

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Parse plain data; raises FormatError."""
        return parsed(cls, data, {})

    def message(self) -> dict[str, Any]:
        """Its part of an EIP-712 struct; raises FormatError when `genesis` is no digest."""
        return {"genesis": raw(self.genesis), "lane": self.lane, "generation": self.generation, "round": self.round}

    def __str__(self) -> str:
        """As people read it, for example "round 3 of lane 0, generation 1"."""
        return f"round {self.round} of lane {self.lane}, generation {self.generation}"
