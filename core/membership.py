"""Membership: how a lane's members change behind a round, without anything being run again.

    leave   an organisation signs that it goes; what it taught stays
    join    the newcomer, and more than half of the members, sign that it comes
    rotate  a key is replaced by another: the old one, or after a loss the administrator, and the new one sign

The coordinator signs a MembershipRecord that contains these signatures; it opens a generation at the lane's head. The
genesis stays what was founded: who the members are at a round follows from it, from these records, and from the
erasures (core/generations.py). Whoever has left does not come back under the same address.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol, Self

from core.aggregation import by_address
from core.canonical import Address, Digest, address, commitment, digest, raw, salt_bytes, to_json
from core.errors import FormatError, ObjectionError
from core.parsing import parsed
from core.rotations import Rotation
from core.signed import CoordinatorStatement, OrganisationStatement, Place, Signed
from core.update import Organisation


def quorum(members: int) -> int:
    """How many of so many members must agree to a newcomer: more than half."""
    return members // 2 + 1


@dataclass(frozen=True)
class Leave(OrganisationStatement):
    """An organisation leaves its federation."""

    struct: ClassVar = "Leave"
    struct_fields: ClassVar = (("genesis", "bytes32"), ("organisation", "address"))

    def message(self) -> dict[str, Any]:
        """The EIP-712 struct."""
        return {"genesis": raw(self.genesis), "organisation": self.organisation}


@dataclass(frozen=True)
class Admission(OrganisationStatement):
    """A member agrees to newcomers, or a newcomer to join: to one `proposal`, at one place of one lane."""

    struct: ClassVar = "Admission"
    struct_fields: ClassVar = (("genesis", "bytes32"), ("organisation", "address"), ("proposal", "bytes32"))

    genesis: Digest
    organisation: Address
    proposal: Digest

    def message(self) -> dict[str, Any]:
        """The EIP-712 struct."""
        return {"genesis": raw(self.genesis), "organisation": self.organisation, "proposal": raw(self.proposal)}


@dataclass(frozen=True)
class Proposal:
    """A change of a lane's members as it is proposed: where it takes place, who was there, and who comes.

    `generation` is the one that it opens, `parent` the digest of the record that this grows from (of the genesis before
    round 1), `members` those before, in order of address.
    """

    genesis: Digest
    lane: int
    generation: int
    parent: Digest
    members: tuple[Address, ...]
    joins: tuple[Organisation, ...]

    @cached_property
    def digest(self) -> Digest:
        """SHA-256 of the canonical JSON under ``foedus/membership-proposal/v1``."""
        return digest("membership-proposal", to_json(self.to_dict()))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for canonical JSON."""
        return asdict(self) | {"members": list(self.members), "joins": [member.to_dict() for member in self.joins]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Parse plain data; raises FormatError."""
        nested = {
            "members": lambda v: tuple(map(address, v)),
            "joins": lambda v: tuple(parsed(Organisation, member, {}) for member in v),
        }
        found = parsed(cls, data, nested)
        if not 0 <= found.lane < 2**32 or not 0 < found.generation < 2**32:
            raise FormatError(
                f"proposal: expected a lane and a generation from 1, got {found.lane}, {found.generation}"
            )
        if empty := [member.name for member in found.joins if member.examples < 1]:
            raise FormatError(f"proposal: expected examples of every newcomer, got none of {empty[0]!r}")
        return found


@dataclass(frozen=True)
class MembershipRecord(CoordinatorStatement):
    """A change of a lane's members, with the signatures of those that it takes; `salt` hides it on the chain."""

    struct: ClassVar = "MembershipChange"
    struct_fields: ClassVar = (
        ("genesis", "bytes32"),
        ("lane", "uint32"),
        ("generation", "uint32"),
        ("record", "bytes32"),
    )

    proposal: Proposal
    admissions: tuple[Signed[Admission], ...]
    leaves: tuple[Signed[Leave], ...]
    salt: str
    rotations: tuple[Signed[Rotation], ...] = ()

    @cached_property
    def digest(self) -> Digest:
        """SHA-256 of the canonical JSON under ``foedus/membership/v1``."""
        return digest("membership", to_json(self.to_dict()))

    @property
    def place(self) -> Place:
        """The lane, and the generation that it opens: from there on a new key signs, the coordinator's this record."""
        return self.proposal.lane, self.proposal.generation

    @property
    def change(self) -> Digest:
        """Its id on the chain: the salted digest of the proposal."""
        return commitment(salt_bytes(self.salt), self.proposal.digest)

    @property
    def committed(self) -> Digest:
        """What the chain is told of it: its own digest, salted."""
        return commitment(salt_bytes(self.salt), self.digest)

    @property
    def leaving(self) -> frozenset[Address]:
        """Those who leave."""
        return frozenset(signed.value.organisation for signed in self.leaves)

    @property
    def members(self) -> tuple[Address, ...]:
        """The members of the lane from here on, in order of address."""
        staying = [member for member in self.proposal.members if member not in self.leaving]
        return tuple(sorted((*staying, *(member.address for member in self.proposal.joins)), key=by_address))

    def parts(self) -> tuple[Signed[Any], ...]:
        """The signatures of organisations."""
        return (*self.admissions, *self.leaves, *self.rotations)

    def check(self) -> None:
        """Raise ObjectionError unless those have signed whom the change takes, and it changes something.

        That the signatures are theirs is `Signed.verified`'s; that the members before are the lane's is for whoever
        knows what opened the generation before.
        """
        proposal = self.proposal
        before, newcomers = set(proposal.members), {member.address for member in proposal.joins}
        agreed = {signed.value.organisation for signed in self.admissions if signed.value.proposal == proposal.digest}
        if proposal.genesis != self.genesis:
            raise ObjectionError(f"membership: expected a change of {self.genesis}, got one of {proposal.genesis}")
        if len(agreed) != len(self.admissions):
            raise ObjectionError("membership: expected signatures under this change, each once, got others")
        changes = bool(newcomers), bool(self.leaves), bool(self.rotations)
        if not any(changes):
            raise ObjectionError("membership: expected somebody who joins or leaves, or a new key, got nobody")
        if self.rotations and (sum(changes) > 1 or len(self.rotations) > 1):
            raise ObjectionError("membership: expected one new key alone, got more changes beside it")
        if len(newcomers) != len(proposal.joins) or newcomers & before or not self.leaving <= before:
            raise ObjectionError("membership: expected newcomers that are none yet, and members that leave, each once")
        if missing := sorted(newcomers - agreed):
            raise ObjectionError(f"membership: expected the signature of the newcomer {missing[0]}, got none")
        if newcomers and (got := len(agreed & before)) < (needed := quorum(len(before))):
            raise ObjectionError(f"membership: expected {needed} of {len(before)} members to agree, got {got}")

    def message(self) -> dict[str, Any]:
        """The EIP-712 struct."""
        place = {"lane": self.proposal.lane, "generation": self.proposal.generation}
        return {"genesis": raw(self.genesis), **place, "record": raw(self.digest)}

    def to_dict(self) -> dict[str, Any]:
        """Plain data for canonical JSON."""
        return {
            "genesis": self.genesis,
            "proposal": self.proposal.to_dict(),
            "admissions": [signed.to_dict() for signed in self.admissions],
            "leaves": [signed.to_dict() for signed in self.leaves],
            "rotations": [signed.to_dict() for signed in self.rotations],
            "salt": self.salt,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Parse plain data; raises FormatError."""
        nested: dict[str, Any] = {
            "proposal": Proposal.from_dict,
            "admissions": lambda v: tuple(Signed.parse(Admission, admission) for admission in v),
            "leaves": lambda v: tuple(Signed.parse(Leave, leave) for leave in v),
            "rotations": lambda v: tuple(Signed.parse(Rotation, rotation) for rotation in v),
            "salt": lambda v: salt_bytes(v).hex(),
        }
        return parsed(cls, data, nested)


class Opening(Protocol):
    """What opened a generation of a lane (core/generations.py)."""

    @property
    def lane(self) -> int:
        """The lane."""

    @property
    def parent(self) -> Digest:
        """The record that it grows from."""

    @property
    def generation(self) -> int:
        """The generation."""

    @property
    def members(self) -> tuple[Address, ...]:
        """Its members."""

    @property
    def erasure(self) -> Digest:
        """Its reason's id on the chain."""

    @property
    def membership(self) -> Digest:
        """The membership record that opened it, or zero."""


def check_opening(opening: Opening, record: MembershipRecord, before: Sequence[Address]) -> None:
    """Check that a membership record opens this generation, of a lane that had these members before.

    Raises ObjectionError.
    """
    proposal = record.proposal
    for what, got, expected in (
        ("membership", opening.membership, record.digest),
        (
            "place",
            (opening.lane, opening.generation, opening.parent),
            (proposal.lane, proposal.generation, proposal.parent),
        ),
        ("members before", proposal.members, tuple(before)),
        ("members", opening.members, record.members),
        ("id on the chain", opening.erasure, record.change),
    ):
        if got != expected:
            raise ObjectionError(f"generation {opening.generation}: {what}: expected {expected}, got {got}")
