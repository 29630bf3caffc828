"""Founders: who may found a federation, and how its members agree to the genesis.

Whoever may not is dropped, and whoever does not show its nonce or does not consent; the others go on without it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from flwr.app import Message, RecordDict

from chain.registry import RegisteredOrganisation
from core.canonical import ZERO_DIGEST, Address, Digest
from core.errors import IntegrityError
from core.founding import Consent, commitment_to
from core.genesis import Genesis
from core.keys import Domain
from core.messages.queries import CONSENT, REVEAL, ConsentQuery, RevealQuery, consent_of, nonce_of
from core.signed import Signed
from core.update import Registration
from server_app.admission import RejectedError, read_reply
from server_app.exchange import Send, ask

T = TypeVar("T")


@dataclass(frozen=True)
class Founders:
    """Who may found: those `listed` with their most examples, those in the `registry`, or anybody.

    `most_examples` is for every member, 0 for no limit. With `own_keys`, as in a deployment, nobody with a derived key:
    it is an organisation that says of itself that it has one, and then it may speak for many, and need not agree.
    """

    listed: Mapping[Address, int] = field(default_factory=dict)
    registry: Callable[[Address], RegisteredOrganisation | None] | None = None
    most_examples: int = 0
    own_keys: bool = False

    def fault(self, registration: Registration, taken: Sequence[str]) -> str:
        """Why an organisation may not found; empty when it may. `taken` are the names of those before it."""
        member = registration.organisation
        known = self.listed.get(Address(member.address.lower()))
        most = min(filter(None, (known, self.most_examples)), default=member.examples)
        entry = self.registry(member.address) if self.registry else None
        keys = (ZERO_DIGEST, registration.node_key)
        faults = {
            f"{member.name} has a derived key, which anybody can compute": self.own_keys and member.derived,
            f"{member.address} is not among the members of the settings": bool(self.listed) and known is None,
            f"{member.name}: expected at most {most} examples, got {member.examples}": member.examples > most,
            f"{member.name}: expected a commitment to a nonce, got none": (
                not member.derived and registration.nonce == ZERO_DIGEST
            ),
            f"the name {member.name} is taken": member.name.casefold() in map(str.casefold, taken),
            f"{member.address} is not registered with the contract": (
                self.registry is not None and (entry is None or entry.revoked_at > 0)
            ),
            f"{member.address}: expected the SuperNode key of its registration with the contract, got another": (
                entry is not None and entry.node_key not in keys
            ),
        }
        return next((fault for fault, there in faults.items() if there), "")


def nonces(
    registrations: Sequence[Signed[Registration]],
    nodes: Mapping[Address, int],
    chain: Domain,
    send: Send,
    refusals: dict[Address, str],
) -> dict[Address, Digest]:
    """The nonces that the registered organisations show; whoever shows none, or another, is told in `refusals`."""
    committed = {signed.value.organisation.address: signed.value.nonce for signed in registrations}
    queries = (
        (who, Message(RevealQuery(who, tuple(registrations), chain).to_content(), nodes[who], REVEAL, group_id="bind"))
        for who in committed
    )
    return answers(queries, send, nonce_of, lambda who, nonce: commitment_to(nonce) == committed[who], refusals)


def consents(
    genesis: Genesis, nodes: Mapping[Address, int], send: Send, refusals: dict[Address, str]
) -> dict[Address, Signed[Consent]]:
    """The consents to a genesis; whoever does not agree is told in `refusals`."""
    queries = (
        (who, Message(ConsentQuery(who, genesis).to_content(), nodes[who], CONSENT, group_id="bind"))
        for who in (member.address for member in genesis.organisations)
    )
    return answers(queries, send, consent_of, lambda who, s: s.verified(genesis).organisation == who, refusals)


def answers(
    queries: Iterable[tuple[Address, Message]],
    send: Send,
    parse: Callable[[RecordDict], T],
    holds: Callable[[Address, T], bool],
    refusals: dict[Address, str],
) -> dict[Address, T]:
    """The answers that hold; whoever refuses, does not answer, or answers something else is told in `refusals`."""
    found = {}
    for who, reply in ask(queries, send):
        try:
            answer = read_reply(reply, parse, "it did not answer")
            if holds(who, answer):
                found[who] = answer
            else:
                refusals[who] = "it answered something else"
        except (RejectedError, IntegrityError) as error:
            refusals[who] = str(error)
    return found
