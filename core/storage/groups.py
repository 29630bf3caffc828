"""Groups: one key for many readers, wrapped once for each of them.

    groups/ADDRESS.keys      the secret of the group's key, of this address, wrapped for each of its readers

What is sealed for many is wrapped for their group alone: a store of n artifacts for m readers takes n + m wraps, not
n · m. The key follows from the coordinator's and the readers, so that a writer that comes back after a crash has the
same one. It opens nothing to anybody new: an artifact is wrapped for a group only where all of it may read.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Self

from core.canonical import Address, digest, domain, to_json
from core.errors import IntegrityError
from core.keys import Key, PublicKey, address_of
from core.storage.sealing import Wraps

GROUPS: Final = "groups"


@dataclass(frozen=True)
class Group:
    """A group's key as one of its readers has opened it, and the wraps by which all of them can."""

    key: Key
    wraps: Wraps
    known: tuple[PublicKey, ...]
    """Those of everybody who may read anything."""

    @classmethod
    def opened(cls, address: Address, wraps: Wraps, reader: Key, known: tuple[PublicKey, ...]) -> Self:
        """The group; raises IntegrityError for a reader of others, and for wraps of another key."""
        key = Key(wraps.open(label(address), reader))
        if key.address != address:
            raise IntegrityError(f"group {address}: expected its key, got that of {key.address}")
        return cls(key, wraps, known)

    @cached_property
    def readers(self) -> frozenset[Address]:
        """Its readers; raises IntegrityError for one who is not known, or for whom the wrap is another."""
        listed = [public for public in self.known if address_of(public) in self.wraps.wraps]
        expected = Wraps.of(self.key.secret, label(self.key.address), listed)
        if odd := sorted(a for a, wrap in self.wraps.wraps.items() if wrap != expected.wraps.get(a)):
            raise IntegrityError(f"group {self.key.address} has a wrap for {odd[0]} that does not open")
        return frozenset(expected.wraps)


def key_of(coordinator: Key, salt: str, readers: Iterable[PublicKey]) -> Key:
    """The key of the group of these readers in the federation of this salt."""
    return coordinator.group_for(digest("group", to_json({"salt": salt, "readers": sorted(readers)})))


def label(address: Address) -> bytes:
    """What the wraps of a group's key are bound to."""
    return domain("sealed") + f"{GROUPS}/{address}".encode()
