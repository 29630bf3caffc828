"""Agreement: what an organisation asks of a federation before it is a member, and its memory of what it agreed to.

A deployed node's settings may pin the coordinator, the contract and the other members; what they do not name is not
asked for. The organisation shows its nonce once, to one set of members, and to
that set one nonce for a run; it agrees to the genesis that follows from that set, and trains under no other. A
coordinator that found a seed which it does not like could found again under another name, or with other members: so
many seeds as the settings allow may come to nothing. Where a signer holds the key, it has the memory too.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, Self

from flwr.app import UserConfig

from chain.devnet.accounts import CHAIN_IDS
from client_app.remote_key import RemoteKey
from client_app.witness import has_sent
from core.canonical import ZERO_DIGEST, Digest, digest, from_json, to_json
from core.deployment import MOST_DRAWS, is_local
from core.errors import IntegrityError, ObjectionError
from core.founding import Consent, commitment_to, founders_digest
from core.genesis import Genesis
from core.keys import Domain
from core.membership import Admission, Proposal
from core.signed import Signed, SigningKey
from core.storage import jsonl
from core.storage.blobs import write
from core.storage.state_folder import State
from core.update import Asked, Registration

_MOST_ENTRIES = 2000
"""Of foundings and consents: about a thousand federations."""


@dataclass(frozen=True)
class Pins:
    """Whose federations a node's settings want; "" is not fixed. What they may ask is core/site_policy.py."""

    coordinator: str = ""
    contract: str = ""
    members: str = ""
    remote: bool = False
    """Whether it has no chain to ask, and its coordinator is another machine."""

    @classmethod
    def of(cls, own: UserConfig) -> Self:
        """Those of a node-config: pin-coordinator, pin-contract, pin-members."""
        coordinator, contract, members = (
            str(own.get(f"pin-{name}", "")) for name in ("coordinator", "contract", "members")
        )
        superlink = str(own.get("superlink", ""))
        remote = bool(superlink) and not own.get("chain-url") and not is_local(f"//{superlink}")
        return cls(coordinator, contract, members, remote)

    def check_asked(self, asked: Asked, chain: Domain) -> None:
        """Raise ObjectionError for a coordinator or contract that is not the pinned one, or a chain out of reach."""
        _check("coordinator", self.coordinator, asked.coordinator)
        _check("contract", self.contract, chain.contract)
        # By its id: an embedded chain, and an anvil that is managed, answer on the loopback of their machine alone.
        if self.remote and chain.chain_id in CHAIN_IDS.values():
            raise ObjectionError(
                "chain: expected one that this machine reaches, got the coordinator's own development chain: set chain "
                "to the RPC URL of one that all reach"
            )

    def check(self, genesis: Genesis) -> None:
        """Raise ObjectionError for a genesis that is not as the settings want it."""
        _check("coordinator", self.coordinator, genesis.coordinator)
        _check("contract", self.contract, genesis.chain.contract)
        self.check_members(member.address for member in genesis.organisations)

    def check_members(self, members: Iterable[str]) -> None:
        """Raise ObjectionError for other members than those pinned."""
        addresses = ",".join(sorted(member.lower() for member in members))
        _check("members", ",".join(sorted(self.members.lower().replace(" ", "").split(","))), addresses)


class AgreeingKey(SigningKey, Protocol):
    """A key that its process holds, from which nonces follow."""

    def nonce_for(self, asked: Digest) -> bytes:
        """A secret that only this key can compute from a digest; the same each time."""


class Agreement:
    """One organisation's memory of what it has shown its nonce for, and agreed to."""

    def __init__(
        self,
        path: Path,
        key: AgreeingKey,
        most_draws: int = MOST_DRAWS,
        trained: Callable[[Digest], bool] = lambda _: False,
    ) -> None:
        """Open or create the memory at `path`; raises IntegrityError when it is damaged.

        `most_draws`: how many seeds a coordinator may have drawn for federations in which this organisation has never
        `trained`.
        """
        self._path, self._key = path, key
        self._most_draws, self._trained = most_draws, trained

    @classmethod
    def of(cls, state: State, key: AgreeingKey, most_draws: int) -> Self:
        """The memory in a state folder, beside that of the rounds that it has trained."""
        path = state.agreed(key.address)
        return cls(path, key, most_draws, lambda genesis: has_sent(state.witness(genesis, key.address)))

    def register(self, plain: Registration, chain: Domain) -> Signed[Registration]:
        """A registration signed: where the key is its own, with a commitment to a nonce that nobody can guess."""
        if self._key.derived:
            return plain.sign(self._key, chain)
        return replace(plain, nonce=commitment_to(self._nonce(plain, chain))).sign(self._key, chain)

    def reveal(self, registrations: Sequence[Signed[Registration]], chain: Domain) -> Digest:
        """The nonce behind the own registration among these, which are the members from now on.

        Raises ObjectionError when the own one is not there, one is not signed, the nonce was shown for others, another
        to these for the same run, or too many of which no training came.
        """
        own = next((s for s in registrations if s.value.organisation.address == self._key.address), None)
        if own is None:
            raise ObjectionError(f"members: expected a registration of {self._key.address}, got none")
        for signed in registrations:
            signed.signed_by(chain, signed.value.organisation.address)
            if signed.value.nonce == ZERO_DIGEST:
                raise ObjectionError(f"{signed.value.organisation.name}: expected a commitment to a nonce, got none")
        nonce = self._nonce(own.value, chain)
        if commitment_to(nonce) != own.value.nonce:
            raise ObjectionError("members: expected the registration that was signed here, got another")
        members = founders_digest(signed.value.organisation for signed in registrations)
        # Shown to a second set, it would tell a coordinator what to commit to in the name of a member of its own.
        shown = {entry["nonce"]: entry["members"] for entry in self._entries("nonce")}
        if shown.setdefault(own.value.nonce, members) != members:
            raise ObjectionError(f"nonce of run {own.value.run}: it was shown for other members before")
        # And a coordinator that may ask the same members again draws until it likes the seed.
        addresses = sorted(signed.value.organisation.address for signed in registrations)
        founding = {"run": own.value.run, "coordinator": own.value.coordinator, "addresses": addresses}
        entry = founding | {"nonce": own.value.nonce, "members": members}
        if any(e != entry and {name: e[name] for name in founding} == founding for e in self._entries("nonce")):
            raise ObjectionError(f"run {own.value.run}: its members drew a seed before: found it under another name")
        self._check_draws(own.value)
        self._note(entry)
        return nonce

    def consent(self, genesis: Genesis) -> Signed[Consent]:
        """The organisation's consent to a genesis of members to whom it has shown its nonce; raises ObjectionError."""
        shown = {entry["nonce"]: entry for entry in self._entries("nonce")}
        nonces = dict(zip((member.address for member in genesis.organisations), genesis.nonces, strict=False))
        own = commitment_to(nonces[self._key.address]) if self._key.address in nonces else None
        members = founders_digest(genesis.organisations)
        asked = {"run": genesis.run, "coordinator": genesis.coordinator, "members": members}
        if own is None or not asked.items() <= shown.get(own, {}).items():
            raise ObjectionError(
                "genesis: expected a seed from the nonce that was shown, for the run, coordinator and members shown"
            )
        self._note({"genesis": genesis.digest, "drawn": own})
        # Kept whole: the organisation checks its coordinator later, without asking it for anything.
        keep(genesis, self._path.parent)
        return Consent(genesis.digest, self._key.address).sign(self._key, genesis.chain)

    def admit(self, genesis: Genesis, proposal: Proposal) -> Signed[Admission]:
        """The organisation's signature under newcomers of its federation, or under its own joining, which it notes.

        Raises ObjectionError for a federation that it is no member of, and is not to be.
        """
        if self._key.address in {member.address for member in proposal.joins}:
            self._note({"genesis": genesis.digest, "drawn": ZERO_DIGEST})
            keep(genesis, self._path.parent)
        self.check(genesis)
        own = genesis.keys.owner(self._key.address)
        return Admission(genesis.digest, own, proposal.digest).sign(self._key, genesis.chain)

    def check(self, genesis: Genesis) -> None:
        """Raise ObjectionError unless the organisation has agreed to a genesis, or its key is anybody's.

        And, as `keep` does, for another history of its members than was shown before.
        """
        if not self._key.derived:
            self.agreed(genesis.digest)
            keep(genesis, self._path.parent)

    def succeed(self, genesis: Genesis) -> None:
        """Note that this key is to replace one that has agreed to a genesis."""
        self._note({"genesis": genesis.digest, "drawn": ZERO_DIGEST})

    def agreed(self, digest: Digest) -> Genesis:
        """The genesis of a federation that the organisation has agreed to found; raises ObjectionError for another."""
        if digest not in {entry["genesis"] for entry in self._entries("genesis")}:
            raise ObjectionError(
                f"federation {digest}: expected one that this organisation has agreed to found; if its state folder "
                "was lost, bring back a copy of agreed/"
            )
        return kept(digest, self._path.parent)

    def _check_draws(self, own: Registration) -> None:
        """Raise ObjectionError when the coordinator has drawn too many seeds already that came to nothing."""
        # Whoever draws until it likes a seed leaves behind the ones that it did not like: nobody trains with them.
        used = {entry["drawn"] for entry in self._entries("genesis") if self._trained(entry["genesis"])}
        # An address may be spelt in many ways, and each would be a coordinator of its own.
        same = own.coordinator.lower()
        drawn = {entry["nonce"] for entry in self._entries("nonce") if entry["coordinator"].lower() == same}
        if (vain := len(drawn - used - {own.nonce})) >= self._most_draws:
            raise ObjectionError(
                f"seeds of coordinator {own.coordinator} of which no training came: expected fewer than "
                f"{self._most_draws}, got {vain}: ask it why, then allow more (most-draws)"
            )

    def _nonce(self, plain: Registration, chain: Domain) -> Digest:
        """A nonce that follows from key and challenge, so that nothing has to be kept in between."""
        # Not from a signature: a hardware token draws a new one each time.
        asked = {"registration": replace(plain, nonce=ZERO_DIGEST).to_dict(), "chain": chain.to_dict()}
        return digest("nonce-secret", self._key.nonce_for(digest("nonce-request", to_json(asked))))

    def _note(self, entry: dict[str, Any]) -> None:
        entries = list(jsonl.read(self._path))
        if entry in entries:
            return
        # Whoever may ask can found without end: what it founds must not fill the disk.
        if len(entries) >= _MOST_ENTRIES:
            raise ObjectionError(f"agreement: expected at most {_MOST_ENTRIES} entries, got one more: begin a new file")
        jsonl.append(self._path, entry)

    def _entries(self, kind: str) -> Iterator[dict[str, Any]]:
        return (entry for entry in jsonl.read(self._path) if kind in entry)


class RemoteAgreement:
    """The same where a signer holds the key: the memory is the signer's, out of reach of the node's code."""

    def __init__(self, folder: Path, key: RemoteKey) -> None:
        """`folder`: where the node keeps what was agreed to, for its own checks."""
        self._folder, self._key = folder, key

    def register(self, plain: Registration, chain: Domain) -> Signed[Registration]:
        """See `Agreement.register`."""
        return self._key.register(plain, chain)

    def reveal(self, registrations: Sequence[Signed[Registration]], chain: Domain) -> Digest:
        """See `Agreement.reveal`; raises IntegrityError when the signer refuses, as the next two do."""
        return self._key.reveal(registrations, chain)

    def consent(self, genesis: Genesis) -> Signed[Consent]:
        """See `Agreement.consent`."""
        consent = self._key.consent(genesis)
        keep(genesis, self._folder)
        return consent

    def admit(self, genesis: Genesis, proposal: Proposal) -> Signed[Admission]:
        """See `Agreement.admit`."""
        admission = self._key.admit(genesis, proposal)
        keep(genesis, self._folder)
        return admission

    def check(self, genesis: Genesis) -> None:
        """See `Agreement.check`."""
        self._key.show(genesis)
        # The signer's memory decides; the copy here is for the organisation's own commands.
        keep(genesis, self._folder)


def keep(genesis: Genesis, folder: Path) -> Genesis:
    """Write down a genesis that was agreed to, with what changed its members since, where that is new.

    Raises ObjectionError where a change is missing that was shown before, whatever asks: a second history would bring
    back a member that has left, or a key that was replaced.
    """
    path = folder / f"{genesis.digest}.json"
    known = kept(genesis.digest, folder).memberships if path.exists() else None
    if any(signed not in genesis.memberships for signed in known or ()):
        raise ObjectionError("memberships: expected those that were shown before, and newer ones, got others")
    if known is None or len(genesis.memberships) > len(known):
        write(path, to_json(genesis.to_message()))
        kept.cache_clear()
    return genesis


@lru_cache(maxsize=16)
def kept(digest: Digest, folder: Path) -> Genesis:
    """A genesis that was agreed to; raises IntegrityError where its file is gone, FormatError where it is damaged."""
    try:
        return Genesis.from_message(from_json((folder / f"{digest}.json").read_bytes()))
    except OSError as error:
        raise IntegrityError(f"federation {digest}: expected its genesis in {folder}, got {error.strerror}") from error


def _check(what: str, pinned: str, got: str) -> None:
    if pinned and pinned.lower() != got.lower():
        raise ObjectionError(f"{what}: expected {pinned}, as pinned, got {got}")
