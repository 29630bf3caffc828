"""Rotation: the key behind an address is replaced, and from there on the new one is what counts.

A member keeps its address: what it taught, registered and is owed stays its own, and so does the coordinator. Each
rotation opens a generation of a lane (core/membership.py); what stands before it is verified by the key of then.
"""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

from core.canonical import Address, Digest, raw
from core.errors import ObjectionError
from core.signed import Federation, MemberStatement, Place


@dataclass(frozen=True)
class Rotation(MemberStatement):
    """The key of `owner`, a member's address or the coordinator's, is replaced: `new` signs where `old` did.

    `by` signs for it, and then `new`: it is `old`, or after a loss the administrator that the genesis names.
    """

    struct: ClassVar = "Rotation"
    struct_fields: ClassVar = (
        ("genesis", "bytes32"),
        ("owner", "address"),
        ("old", "address"),
        ("new", "address"),
        ("by", "address"),
    )

    genesis: Digest
    owner: Address
    old: Address
    new: Address
    by: Address

    @property
    def organisation(self) -> Address:
        """Whose statement it is."""
        return self.owner

    def federation(self) -> Digest:
        """The genesis digest."""
        return self.genesis

    def signers(self, federation: Federation, place: Place | None) -> tuple[Address, ...]:  # noqa: ARG002 - named in it
        """Who replaces the key, and the new one."""
        return self.by, self.new

    def message(self) -> dict[str, Any]:
        """The EIP-712 struct."""
        return asdict(self) | {"genesis": raw(self.genesis)}


@dataclass(frozen=True)
class KeyChain:
    """The rotations of a federation, each with the lane and generation that it opened; `extended` makes valid ones."""

    rotations: tuple[tuple[Place, Rotation], ...] = ()

    def signing(self, owner: Address, place: Place | None = None) -> Address:
        """The address whose key signs for an owner at a place; the newest of any lane, where there is none."""
        key = owner
        # In order of succession, whatever the order of the lanes: a crash may have rotated in some of them only.
        while (following := self._following(owner, key, place)) is not None:
            key = following
        return key

    def owner(self, key: Address) -> Address:
        """The address that a key speaks for, or spoke: its own, unless it replaced another."""
        return self._owners.get(key, key)

    def extended(
        self, place: Place, rotation: Rotation, taken: Collection[Address], administrator: Address | None
    ) -> Self:
        """These and one more, of which `taken` are the addresses that no new key may have.

        Raises ObjectionError for one of a key that does not sign before it, as when it is shown again, for a second
        one of the same key, for a new key that was known before, and where neither the old key nor the administrator
        signs.
        """
        lane, generation = place
        expected = self.signing(rotation.owner, (lane, generation - 1))
        if rotation.old != expected:
            raise ObjectionError(f"rotation: expected one of {expected}, which signs here, got one of {rotation.old}")
        # In each of its lanes the same statement replaces a key, and no other one does.
        others = [other for _, other in self.rotations if other != rotation]
        if any((other.owner, other.old) == (rotation.owner, rotation.old) for other in others):
            raise ObjectionError(f"rotation: expected one new key for {rotation.old}, got two")
        if rotation.new in taken or rotation.new in {other.new for other in others}:
            raise ObjectionError(f"rotation: expected a key that was never used here, got {rotation.new}")
        if rotation.by not in (rotation.old, administrator):
            raise ObjectionError(f"rotation: expected the old key or the administrator to sign, got {rotation.by}")
        return type(self)((*self.rotations, (place, rotation)))

    def _following(self, owner: Address, key: Address, place: Place | None) -> Address | None:
        """The key that replaced another of an owner, up to a place."""
        for (lane, generation), rotation in self.rotations:
            within = place is None or (lane == place[0] and generation <= place[1])
            if within and (rotation.owner, rotation.old) == (owner, key):
                return rotation.new
        return None

    @cached_property
    def _owners(self) -> dict[Address, Address]:
        return {rotation.new: rotation.owner for _, rotation in self.rotations}
