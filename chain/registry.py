"""The registry of organisations: address and SuperNode key of each, registered by its own signed request.

A coordinator submits the request (chain/membership.py), which admits the organisation. The administrator revokes for
good, from the next round: a round whose parent was committed after the revocation's block must not contain the
organisation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chain.contract import BoundContract, to_digest
from chain.deployment import bind
from chain.membership import MembershipRequest
from core.canonical import Address, Digest, raw
from core.errors import UsageError
from core.keys import Domain, Key

_MOST_READ = 64
"""Organisations that are looked up one by one; of thousands, asked for each second, a question each is too many."""
_REORGANISED = 16
"""Blocks that are looked at again: a chain may replace its newest ones."""


@dataclass(frozen=True)
class RegisteredOrganisation:
    """A registered organisation, and the blocks of its first registration and of its revocation (0: none)."""

    node_key: Digest
    registered_at: int
    revoked_at: int


class Registry:
    """The registered organisations of a public ledger.

    Every method raises LedgerUnreachableError when the node does not answer.
    """

    def __init__(self, bound: BoundContract) -> None:
        """`bound`: the PublicLedger contract; with the coordinator's key to register, the administrator's to revoke."""
        self._bound = bound

    @property
    def domain(self) -> Domain:
        """The EIP-712 domain of requests: chain and contract."""
        return self._bound.domain

    def nonce(self, organisation: Address) -> int:
        """The nonce of an organisation's next request."""
        return int(self._bound.call("nonces", organisation, purpose=f"the nonce of {organisation}"))

    def read(self, organisation: Address) -> RegisteredOrganisation | None:
        """An organisation's registration, or None."""
        node_key, registered_at, revoked_at = self._bound.call(
            "getOrganisation", organisation, purpose=f"the registration of {organisation}"
        )
        return RegisteredOrganisation(to_digest(node_key), registered_at, revoked_at) if registered_at else None

    def register(self, request: MembershipRequest) -> RegisteredOrganisation:
        """Submit a request; submitting it again changes nothing.

        Raises UsageError for a request for another contract, LedgerConflictError when the contract refuses it: expired,
        signed by another, revoked.
        """
        if request.domain != self.domain:
            raise UsageError(f"expected a request for {self.domain}, got one for {request.domain}")

        def registered() -> RegisteredOrganisation | None:
            # The contract uses a nonce up with its request, and with no other: it tells ours from an earlier one.
            return self.read(request.organisation) if self.nonce(request.organisation) > request.nonce else None

        return self._bound.execute(
            "register",
            request.organisation,
            raw(request.node_key),
            request.deadline,
            bytes.fromhex(request.signature[2:]),
            effect=registered,
            purpose=f"registering {request.organisation}",
        )

    def revoke(self, organisation: Address) -> RegisteredOrganisation:
        """End an organisation's registration for good; repeating it changes nothing.

        Raises LedgerConflictError when it was never registered or the key is not the administrator's.
        """

        def revoked() -> RegisteredOrganisation | None:
            known = self.read(organisation)
            return known if known and known.revoked_at else None

        return self._bound.execute(
            "revokeOrganisation", organisation, effect=revoked, purpose=f"revoking {organisation}"
        )


class RevocationEvents:
    """The revocations among many, by the contract's events: each block is looked at once, and the newest again."""

    def __init__(self, bound: BoundContract) -> None:
        self._bound = bound
        self._following = 0
        self._ever: set[Address] = set()

    def among(self, organisations: Sequence[Address]) -> Sequence[Address]:
        """Those of few, or of many those with an event: whether one is revoked is for the contract's storage to say."""
        if len(organisations) <= _MOST_READ:
            return organisations
        purpose, newest = "the revocations", self._bound.newest_block
        events = self._bound.events("OrganisationRevoked", self._following, newest, {}, purpose=purpose)
        self._ever |= {Address(event["args"]["organisation"]) for event in events}
        self._following = max(0, newest - _REORGANISED)
        return [address for address in organisations if address in self._ever]


def registry_of(
    chain: str, state: Path, contract: Address | None, key: Key | None = None, *, appoint: bool = False
) -> Registry:
    """The registry of a contract (by default the one that `state` knows), read-only without a key.

    `appoint` gives the key the coordinator's role. Raises what `chain.deployment.bind` raises.
    """
    bound = bind("PublicLedger", chain, state, key if appoint else None, contract=contract)
    return Registry(BoundContract(bound.node, "PublicLedger", bound.address, key))
