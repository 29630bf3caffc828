"""The former run: the one whose served adapter another run begins with.

The state before round 1 is that adapter in place of zero, so that B^R = B^0 + Σ_k C_k: what the former run taught is a
term of its own beside those of the organisations, and sums stay exact.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from eth_utils.address import to_checksum_address

from core.canonical import Address, Digest
from core.errors import FormatError
from core.names import RUN_ID
from core.parsing import parsed


@dataclass(frozen=True)
class FormerRun:
    """The former run as a genesis names it.

    `record` is the digest of the record of the round that it served, `state` that of what it served, an AdapterState.
    `seed` is the one that its shared A was drawn from.
    """

    run: str
    genesis: Digest
    record: Digest
    state: Digest
    seed: int

    @property
    def address(self) -> Address:
        """What its term is called where organisations stand by address; nobody has a key to it."""
        return Address(to_checksum_address("0x" + self.genesis[-40:]))

    @property
    def name(self) -> str:
        """What people read of it; a colon stands in no organisation's name."""
        return f"run:{self.run}"

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Parse plain data; raises FormatError, also for a run id that is no name of a folder."""
        origin = parsed(cls, data, {})
        if not RUN_ID.fullmatch(origin.run):
            raise FormatError(f"malformed former run: expected a run id, got {origin.run!r:.80}")
        return origin
