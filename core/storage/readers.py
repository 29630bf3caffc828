"""Who may read what a run stores: the coordinator, the organisations it concerns, and the auditors of the genesis."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from core.canonical import Address
from core.errors import FormatError, IntegrityError
from core.genesis import Genesis
from core.keys import PublicKey, address_of, public_key


@dataclass(frozen=True)
class Readers:
    """The public keys behind the addresses of a genesis, in its order; what is sealed is sealed for them."""

    coordinator: PublicKey
    organisations: tuple[PublicKey, ...]
    auditors: tuple[PublicKey, ...] = ()

    def of(self, members: Collection[Address] | None = None) -> tuple[PublicKey, ...]:
        """The coordinator, these organisations (all of them by default), and every auditor; nobody twice."""
        among = None if members is None else frozenset(members)
        chosen = (key for key in self.organisations if among is None or address_of(key) in among)
        return tuple(dict.fromkeys((self.coordinator, *chosen, *self.auditors)))

    def with_newcomers(self, genesis: Genesis) -> Self:
        """These, and the keys of those who joined since, by their signatures; raises ForgeryError."""
        joined = (
            signed.public_key(genesis.chain)
            for membership in genesis.memberships
            for signed in membership.value.admissions
            if signed.value.organisation in {member.address for member in membership.value.proposal.joins}
        )
        return replace(self, organisations=(*self.organisations, *joined))

    def check(self, genesis: Genesis) -> None:
        """Raise IntegrityError unless these are the keys of those whom the genesis names."""
        got = tuple(map(address_of, (self.coordinator, *self.organisations, *self.auditors)))
        members = (organisation.address for organisation in genesis.organisations)
        expected = (genesis.coordinator, *members, *genesis.auditors)
        if odd := sorted(set(got) ^ set(expected)):
            kind = "no key of" if odd[0] in expected else "the key of a stranger,"
            raise IntegrityError(f"the readers have {kind} {odd[0]}")
        if got != expected:
            raise IntegrityError("the readers stand in another order than in the genesis")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for canonical JSON."""
        lists = {"organisations": list(self.organisations), "auditors": list(self.auditors)}
        return {"coordinator": self.coordinator} | lists

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Parse plain data; raises FormatError."""
        try:
            organisations, auditors = (tuple(map(public_key, data[name])) for name in ("organisations", "auditors"))
            parsed = cls(public_key(data["coordinator"]), organisations, auditors)
        except (KeyError, TypeError) as error:
            raise FormatError(f"malformed Readers: {error}") from error
        if len(data) != 3:
            raise FormatError(f"malformed Readers: {sorted(data)}")
        return parsed


NOBODY: Final = Readers(PublicKey(""), ())
"""Stands for readers that are not known: what is sealed can be opened, and nothing can be sealed."""
