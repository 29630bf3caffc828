"""Agreement: what an organisation asks of a federation before it is a member, and its memory of what it agreed to.

A deployed node's settings may pin the coordinator, the contract, the base, the other members and the largest norm of an
update; what they do not name is not asked for. The organisation shows its nonce once, to one set of members, and to
that set one nonce for a run; it agrees to the genesis that follows from that set, and trains under no other.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from flwr.app import UserConfig

from core.canonical import ZERO_DIGEST, Digest, digest, to_json
from core.errors import ObjectionError
from core.founding import Consent, commitment_to, founders_digest
from core.genesis import Genesis
from core.keys import Domain
from core.messages.queries import RevealQuery
from core.signed import Signed, SigningKey
from core.storage import jsonl
from core.storage.blobs import write
from core.update import Asked, Organisation, Registration


@dataclass(frozen=True)
class Pins:
    """What a node's settings fix about its federations; "" is not fixed, and 0.0 no bound."""

    coordinator: str = ""
    contract: str = ""
    base_digest: str = ""
    members: str = ""
    norm_bound: float = 0.0

    @classmethod
    def of(cls, own: UserConfig) -> Self:
        """Those of a node-config: pin-coordinator, pin-contract, pin-base, pin-members, pin-norm-bound."""
        texts = {name: str(own.get(f"pin-{name}", "")) for name in ("coordinator", "contract", "base", "members")}
        bound = float(own.get("pin-norm-bound", 0.0))
        return cls(texts["coordinator"], texts["contract"], texts["base"], texts["members"], bound)

    def check_asked(self, asked: Asked, chain: Domain) -> None:
        """Raise ObjectionError for a coordinator or contract that is not the pinned one."""
        _check("coordinator", self.coordinator, asked.coordinator)
        _check("contract", self.contract, chain.contract)

    def check(self, genesis: Genesis) -> None:
        """Raise ObjectionError for a genesis that is not as the settings want it."""
        _check("coordinator", self.coordinator, genesis.coordinator)
        _check("contract", self.contract, genesis.chain.contract)
        _check("base", self.base_digest, genesis.base.digest)
        members = ",".join(sorted(member.address.lower() for member in genesis.organisations))
        _check("members", ",".join(sorted(self.members.lower().replace(" ", "").split(","))), members)
        if self.norm_bound and genesis.norm_bound > self.norm_bound:
            raise ObjectionError(
                f"norm-bound: expected at most {self.norm_bound:g}, as pinned, got {genesis.norm_bound:g}"
            )


def registration(
    key: SigningKey, member: Organisation, asked: Asked, chain: Domain, **own: Any
) -> Signed[Registration]:
    """The organisation's registration: where its key is its own, with a commitment to a nonce that nobody can guess."""
    plain = Registration(member, asked.coordinator, asked.run, asked.challenge, **own)
    if key.derived:
        return plain.sign(key, chain)
    return replace(plain, nonce=commitment_to(_nonce(key, plain, chain))).sign(key, chain)


class Agreement:
    """One organisation's memory of what it has shown its nonce for, and agreed to."""

    def __init__(self, path: Path, key: SigningKey, member: Organisation) -> None:
        """Open or create the memory at `path`; raises IntegrityError when it is damaged."""
        self._path, self._key, self._member = path, key, member

    def reveal(self, query: RevealQuery) -> Digest:
        """The nonce behind the own registration among those of the query, which are the members from now on.

        Raises ObjectionError when the own one is not there, one is not signed, the nonce was shown for others, or
        another to these for the same run.
        """
        own = next((s for s in query.registrations if s.value.organisation.address == self._key.address), None)
        if own is None or own.value.organisation != self._member:
            raise ObjectionError(f"members: expected a registration of {self._member}, got none")
        for signed in query.registrations:
            signed.signed_by(query.chain, signed.value.organisation.address)
            if signed.value.nonce == ZERO_DIGEST:
                raise ObjectionError(f"{signed.value.organisation.name}: expected a commitment to a nonce, got none")
        nonce = _nonce(self._key, own.value, query.chain)
        if commitment_to(nonce) != own.value.nonce:
            raise ObjectionError("members: expected the registration that was signed here, got another")
        members = founders_digest(signed.value.organisation for signed in query.registrations)
        # Shown to a second set, it would tell a coordinator what to commit to in the name of a member of its own.
        shown = {entry["nonce"]: entry["members"] for entry in self._entries("nonce")}
        if shown.setdefault(own.value.nonce, members) != members:
            raise ObjectionError(f"nonce of run {own.value.run}: it was shown for other members before")
        # And a coordinator that may ask the same members again draws until it likes the seed.
        addresses = sorted(signed.value.organisation.address for signed in query.registrations)
        founding = {"run": own.value.run, "coordinator": own.value.coordinator, "addresses": addresses}
        entry = founding | {"nonce": own.value.nonce, "members": members}
        if any(e != entry and {name: e[name] for name in founding} == founding for e in self._entries("nonce")):
            raise ObjectionError(f"run {own.value.run}: its members drew a seed before: found it under another name")
        jsonl.append(self._path, entry)
        return nonce

    def consent(self, genesis: Genesis, pins: Pins) -> Consent:
        """The organisation's consent, to be signed, to a genesis of members to whom it has shown its nonce.

        Raises ObjectionError for any other, and for one that the settings do not want.
        """
        pins.check(genesis)
        if genesis.organisation(self._key.address) != self._member:
            raise ObjectionError(f"genesis: expected {self._member} as a member, as it registered")
        shown = {entry["nonce"]: entry["members"] for entry in self._entries("nonce")}
        index = [member.address for member in genesis.organisations].index(self._key.address)
        own = commitment_to(genesis.nonces[index]) if genesis.nonces else None
        if own is None or shown.get(own) != founders_digest(genesis.organisations):
            raise ObjectionError(
                "genesis: expected a seed from the nonce that was shown, and the members it was shown to"
            )
        # Kept whole: the organisation checks its coordinator later, without asking it for anything.
        write(self._path.parent / f"{genesis.digest}.json", to_json(genesis.to_dict()))
        jsonl.append(self._path, {"genesis": genesis.digest})
        return Consent(genesis.digest, self._key.address)

    def check(self, genesis: Genesis) -> None:
        """Raise ObjectionError unless the organisation has agreed to a genesis, or its key is anybody's."""
        if not self._key.derived and genesis.digest not in {e["genesis"] for e in self._entries("genesis")}:
            raise ObjectionError(
                f"federation {genesis.digest}: expected one that this organisation has agreed to found"
            )

    def _entries(self, kind: str) -> Iterator[dict[str, Any]]:
        return (entry for entry in jsonl.read(self._path) if kind in entry)


def _nonce(key: SigningKey, plain: Registration, chain: Domain) -> Digest:
    """A nonce that follows from the key and the coordinator's challenge, so that nothing has to be kept in between."""
    # Not from a signature: a hardware token draws a new one each time.
    asked = {"registration": replace(plain, nonce=ZERO_DIGEST).to_dict(), "chain": chain.to_dict()}
    return digest("nonce-secret", key.salt_for(digest("nonce-request", to_json(asked))))


def _check(what: str, pinned: str, got: str) -> None:
    if pinned and pinned.lower() != got.lower():
        raise ObjectionError(f"{what}: expected {pinned}, as pinned, got {got}")
