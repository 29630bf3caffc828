"""Bindings: the node that speaks for each organisation, known by a signed answer to a challenge, never by node ids."""

import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

from flwr.app import Message
from flwr.serverapp import Grid

from core.aggregation import by_address
from core.canonical import Address, Digest
from core.errors import FormatError, RunError
from core.escape import one_line
from core.keys import Domain, PublicKey
from core.messages.codec import BOUND_BYTES
from core.messages.queries import BIND, Bind, Bound
from core.messages.refusal import Refusal
from core.signed import Signed
from core.update import Asked, Organisation, Registration, verified_registration
from server_app.exchange import ask, exchange, last_line
from server_app.founders import Founders

_POLL_SECONDS = 0.5
_ANSWER_SECONDS = 60.0


@dataclass
class Bindings:
    """Organisations by address, the node of each, and the largest number of organisations that a node knows of."""

    domain: Domain
    coordinator: Address
    run: str
    founders: Founders = field(default_factory=Founders)
    nodes: dict[Address, int] = field(default_factory=dict)
    organisations: dict[Address, Organisation] = field(default_factory=dict)
    public_keys: dict[Address, PublicKey] = field(default_factory=dict)
    registrations: dict[Address, Signed[Registration]] = field(default_factory=dict)
    dropped: set[Address] = field(default_factory=set)
    """Organisations that did not agree to what they founded."""
    asked: set[int] = field(default_factory=set)
    known: int = 0
    most: int = BOUND_BYTES
    """The most bytes of one node's registrations."""
    failure: str = ""
    """The reason of the last node that failed."""
    expected: int = 0
    """How many organisations are waited for, until `deadline`; 0: as many as the nodes know of."""
    deadline: float = 0.0

    @property
    def present(self) -> list[Signed[Registration]]:
        """The registrations of the organisations whose nodes are connected, in order of address."""
        return [self.registrations[who] for who in sorted(self.registrations, key=by_address) if who in self.nodes]

    def refresh(self, grid: Grid) -> None:
        """Ask the nodes that have not been asked; forget the ones that are gone."""
        present = set(grid.get_node_ids())
        self.asked &= present
        self.nodes = {address: node for address, node in self.nodes.items() if node in present}
        # A challenge for each node: what one node's organisation has signed is no answer of another node.
        asked = {
            node: Asked(self.coordinator, self.run, Digest("0x" + secrets.token_hex(32)))
            for node in sorted(present - self.asked)
        }
        contents = ((node, Bind(question, self.domain).to_content()) for node, question in asked.items())
        messages = ((node, Message(content, node, BIND, group_id="bind")) for node, content in contents)
        for node, reply in ask(messages, partial(exchange, grid, timeout=_ANSWER_SECONDS)):
            if reply is None:
                continue  # asked again with the next refresh
            if failure := failure_of(reply):
                self.failure = failure
                continue
            self.asked.add(node)
            for signed, public in self.verified(reply, asked[node]):
                self._take(node, signed, public)

    def rebind(self, grid: Grid) -> None:
        """Ask every node anew: what was signed for members of whom some are dropped holds no more.

        Whoever was dropped has held a place: it is waited for another, as long as `wait` would have waited.
        """
        self.asked.clear()
        self.registrations.clear()
        self._ask_until_complete(grid)

    def drop(self, organisations: Iterable[Address], reason: str) -> None:
        """Leave organisations out of what is founded, for good."""
        for organisation in organisations:
            self.dropped.add(organisation)
            self.failure = f"{self.organisations.pop(organisation).name} {reason}"
            for known in (self.nodes, self.public_keys, self.registrations):
                known.pop(organisation, None)

    def _take(self, node: int, signed: Signed[Registration], public: PublicKey) -> None:
        """Bind an organisation to the node that spoke for it, if it may found."""
        member = signed.value.organisation
        if member.address in self.dropped:
            return
        others = [o.name for o in self.organisations.values() if o.address != member.address]
        if fault := self.founders.fault(signed.value, others):
            self.failure = one_line(fault)
            return
        # The first node to prove a key keeps its organisation: a second one cannot take it over.
        if self.nodes.setdefault(member.address, node) == node:
            self.organisations[member.address] = member
            self.public_keys[member.address] = public
            self.registrations[member.address] = signed

    def wait(self, grid: Grid, expected: int, timeout: float) -> None:
        """Ask until so many organisations are bound; 0: as many as the nodes know of.

        Raises RunError when they are not within `timeout` seconds.
        """
        self.expected, self.deadline = expected, time.monotonic() + timeout
        if not self._ask_until_complete(grid):
            goal = self.expected or self.known
            answered = f"{len(self.nodes)} of {goal or 'at least 1'} organisations answered in {timeout:g} s"
            reason = f"a node failed: {self.failure}" if self.failure else "nodes that are not up, or a busy machine"
            raise RunError(f"{answered}; {reason}")

    def _ask_until_complete(self, grid: Grid) -> bool:
        """Whether so many organisations are bound before the deadline as are waited for."""
        while True:
            self.refresh(grid)
            if len(self.nodes) >= (self.expected or self.known) > 0:
                return True
            if time.monotonic() > self.deadline:
                return False
            time.sleep(_POLL_SECONDS)

    def verified(self, reply: Message, asked: Asked) -> Iterator[tuple[Signed[Registration], PublicKey]]:
        """The registrations that were signed, and the keys; a node that lies about one organisation loses all of them.

        A node speaks for one organisation, unless their keys are derived, as in a simulation.
        """
        try:
            bound = Bound.from_content(reply.content, self.most)
            members = [(signed, signed.public_key(self.domain)) for signed in bound.registrations]
            own = [verified_registration(signed, self.domain, asked) for signed in bound.registrations]
        # The boundary: one node's answer, whatever it holds, must not end the founding for all others.
        except Exception:  # noqa: BLE001
            return
        if len(own) > 1 and not all(member.derived for member in own):
            self.failure = f"expected one organisation of a node, got {len(own)}"
            return
        # An organisation with a key of its own knows of itself: by another count it would have all others waited for.
        if all(member.derived for member in own):
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
