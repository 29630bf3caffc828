"""Who may read what a run stores: the coordinator, the organisations it concerns, and the auditors of the genesis."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self

from core.canonical import Address
from core.errors import FormatError, IntegrityError
from core.genesis import Genesis
from core.keys import PublicKey, address_of, public_key
from core.rotations import KeyChain


@dataclass(frozen=True)
class Readers:
    """The public keys behind the addresses of a genesis, in its order; what is sealed is sealed for them.

    `chain` says for whom a key speaks that has replaced another.
    """

    coordinator: PublicKey
    organisations: tuple[PublicKey, ...]
    auditors: tuple[PublicKey, ...] = ()
    chain: KeyChain = field(default_factory=KeyChain)

    def of(self, members: Collection[Address] | None = None) -> tuple[PublicKey, ...]:
        """The coordinator, these organisations (all of them by default), and every auditor; nobody twice."""
        among = None if members is None else frozenset(members)
        chosen = (key for key in self.organisations if among is None or self.owner(address_of(key)) in among)
        return tuple(dict.fromkeys((self.coordinator, *chosen, *self.auditors)))

    def owner(self, key: Address) -> Address:
        """The address that a key speaks for, or spoke before it was replaced."""
        return self.chain.owner(key)

    def since(self, genesis: Genesis) -> Self:
        """These, with the keys of those who joined, and the keys that replaced others, by signatures.

        Raises ForgeryError for a signature that recovers none.
        """
        joined = (
            signed.public_key(genesis.chain)
            for membership in genesis.memberships
            for signed in membership.value.admissions
            if signed.value.organisation in {member.address for member in membership.value.proposal.joins}
        )
        new = {
            signed.value.new: signed.public_key(genesis.chain, 1)
            for membership in genesis.memberships
            for signed in membership.value.rotations
        }

        def current(key: PublicKey) -> PublicKey:
            return new.get(genesis.signing(address_of(key)), key)

        organisations = tuple(map(current, (*self.organisations, *joined)))
        return replace(self, coordinator=current(self.coordinator), organisations=organisations, chain=genesis.keys)

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
            raise FormatError(f"malformed list of readers: {error}") from error
        if len(data) != 3:
            raise FormatError(f"malformed list of readers: {sorted(data)}")
        return parsed


NOBODY: Final = Readers(PublicKey(""), ())
"""Stands for readers that are not known: what is sealed can be opened, and nothing can be sealed."""
