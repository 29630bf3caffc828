"""Bindings: the node that speaks for each organisation, known by a signed answer to a challenge, never by node ids."""

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

from flwr.app import Message
from flwr.serverapp import Grid

from core.canonical import Address, Digest
from core.errors import FormatError, RunError
from core.escape import one_line
from core.keys import Domain, PublicKey
from core.messages.codec import BOUND_BYTES
from core.messages.queries import BIND, Bind, Bound
from core.messages.refusal import Refusal
from core.update import Asked, Organisation, verified_registration
from server_app.exchange import ask, exchange, last_line

_POLL_SECONDS = 0.5
_ANSWER_SECONDS = 60.0


@dataclass
class Bindings:
    """Organisations by address, the node of each, and the largest number of organisations that a node knows of."""

    domain: Domain
    coordinator: Address
    run: str
    nodes: dict[Address, int] = field(default_factory=dict)
    organisations: dict[Address, Organisation] = field(default_factory=dict)
    public_keys: dict[Address, PublicKey] = field(default_factory=dict)
    asked: set[int] = field(default_factory=set)
    known: int = 0
    most: int = BOUND_BYTES
    """The most bytes of one node's registrations."""
    failure: str = ""
    """The reason of the last node that failed."""

    def refresh(self, grid: Grid) -> None:
        """Ask the nodes that have not been asked; forget the ones that are gone."""
        present = set(grid.get_node_ids())
        self.asked &= present
        self.nodes = {address: node for address, node in self.nodes.items() if node in present}
        asked = Asked(self.coordinator, self.run, Digest("0x" + secrets.token_hex(32)))
        query = Bind(asked, self.domain).to_content()
        fresh = present - self.asked
        messages = [(node, Message(query, node, BIND, group_id="bind")) for node in sorted(fresh)]
        for node, reply in ask(messages, partial(exchange, grid, timeout=_ANSWER_SECONDS)):
            if reply is None:
                continue  # asked again with the next refresh
            if failure := failure_of(reply):
                self.failure = failure
                continue
            self.asked.add(node)
            for organisation, public in self.verified(reply, asked):
                # The first node to prove a key keeps its organisation: a second one cannot take it over.
                self.nodes.setdefault(organisation.address, node)
                self.organisations.setdefault(organisation.address, organisation)
                self.public_keys.setdefault(organisation.address, public)

    def wait(self, grid: Grid, expected: int, timeout: float) -> None:
        """Ask until so many organisations are bound; 0: as many as the nodes know of.

        Raises RunError when they are not within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            self.refresh(grid)
            goal = expected or self.known
            if goal and len(self.nodes) >= goal:
                return
            if time.monotonic() > deadline:
                answered = f"{len(self.nodes)} of {goal or 'at least 1'} organisations answered in {timeout:g} s"
                raise RunError(f"{answered}; a node failed: {self.failure}" if self.failure else answered)
            time.sleep(_POLL_SECONDS)

    def verified(self, reply: Message, asked: Asked) -> Iterator[tuple[Organisation, PublicKey]]:
        """The organisations that signed, and their keys; a node that lies about one loses all of them."""
        try:
            bound = Bound.from_content(reply.content, self.most)
            members = [
                (verified_registration(signed, self.domain, asked), signed.public_key(self.domain))
                for signed in bound.registrations
            ]
        # The boundary: one node's answer, whatever it holds, must not end the founding for all others.
        except Exception:  # noqa: BLE001
            return
        self.known = max(self.known, bound.known)
        yield from members


def failure_of(reply: Message) -> str:
    """Why a node could not answer, by its error or its refusal; empty when it did."""
    if reply.has_error():
        return one_line(last_line(reply.error.reason))
    try:
        refusal = Refusal.from_content(reply.content)
    except FormatError:
        return ""
    return one_line(refusal.detail or refusal.cause) if refusal else ""
