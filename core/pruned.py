"""Pruned: the aggregates of a run that were removed because its updates give them again.

It excuses that a file is not there, and nothing else: an auditor computes the state and compares its digest with the
signed record. So it needs no signature.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from core.canonical import Digest, raw
from core.errors import FormatError


@dataclass(frozen=True)
class Pruned:
    """The digests of aggregates that were removed, in order, each once."""

    aggregates: tuple[Digest, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for canonical JSON."""
        return {"aggregates": list(self.aggregates)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Parse plain data; raises FormatError."""
        if not isinstance(data, Mapping) or data.keys() != {"aggregates"} or not isinstance(data["aggregates"], list):
            raise FormatError("malformed list of what was pruned: expected aggregates")
        for name in data["aggregates"]:
            raw(name)
        if data["aggregates"] != sorted(set(data["aggregates"])):
            raise FormatError("malformed list of what was pruned: expected aggregates in order, each once")
        return cls(tuple(map(Digest, data["aggregates"])))
