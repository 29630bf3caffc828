"""Bindings: the node that speaks for each organisation, known by a signed answer to a challenge, never by node ids.

Nobody is waited for but by `wait`: a question stays out until it is answered, and each look takes what has come since.
"""

import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from flwr.app import Message, Metadata
from flwr.serverapp import Grid

from core.aggregation import by_address
from core.canonical import Address, Digest
from core.errors import ConfigError, FormatError, RunError
from core.escape import one_line
from core.keys import Domain, PublicKey
from core.messages.codec import BOUND_BYTES
from core.messages.queries import BIND, Bind, Bound
from core.messages.refusal import Refusal
from core.names import listed
from core.rotations import KeyChain
from core.signed import Signed
from core.update import Asked, Organisation, Registration, verified_registration
from server_app.exchange import CLOCK, Clock, last_line, pulled
from server_app.founders import Founders

_POLL_SECONDS = 0.5
_LONGEST_REASON = 200
_AGAIN_SECONDS = 10.0
"""Before a node that failed is asked again."""


@dataclass(frozen=True)
class _Question:
    """What a node was asked, and the message that is out."""

    asked: Asked
    sent: Metadata


@dataclass
class Bindings:
    """Organisations by address, the node of each, and the largest number of organisations that a node knows of."""

    domain: Domain
    coordinator: Address
    run: str
    founders: Founders = field(default_factory=Founders)
    keys: KeyChain = field(default_factory=KeyChain)
    """The keys that have replaced others in the run."""
    nodes: dict[Address, int] = field(default_factory=dict)
    organisations: dict[Address, Organisation] = field(default_factory=dict)
    public_keys: dict[Address, PublicKey] = field(default_factory=dict)
    registrations: dict[Address, Signed[Registration]] = field(default_factory=dict)
    dropped: set[Address] = field(default_factory=set)
    """Organisations that did not agree to what they founded."""
    again_at: dict[int, float] = field(default_factory=dict)
    """By node that was asked, when it is to be asked again: never, where it answered or waiting changes nothing."""
    holders: set[int] = field(default_factory=set)
    """Nodes that have the genesis: they have answered a message with it."""
    known: int = 0
    most: int = BOUND_BYTES
    """The most bytes of one node's registrations."""
    failure: str = ""
    """The reason of the last node that failed."""
    note: Callable[[int, str], object] = lambda _node, _reason: None
    """Is told every node that failed, and its reason, once."""
    product: str = ""
    """The software here."""
    differs: Callable[[Address, str], object] = lambda _organisation, _product: None
    """Is told whose software is another."""
    expected: int = 0
    """How many organisations are waited for, until `deadline`; 0: as many as the nodes know of."""
    deadline: float = 0.0
    clock: Clock = CLOCK
    _out: dict[int, _Question] = field(default_factory=dict)
    _objecting: set[int] = field(default_factory=set)
    """Nodes that object to the question, whenever they are asked."""
    _noted: set[tuple[int, str]] = field(default_factory=set)

    @property
    def present(self) -> list[Signed[Registration]]:
        """The registrations of the organisations whose nodes are connected, in order of address."""
        return [self.registrations[who] for who in sorted(self.registrations, key=by_address) if who in self.nodes]

    def refresh(self, grid: Grid) -> None:
        """Ask the nodes that are to be asked, take the answers that have come, and forget the nodes that are gone."""
        present = set(grid.get_node_ids())
        self.again_at = {node: at for node, at in self.again_at.items() if node in present}
        self._out = {node: question for node, question in self._out.items() if node in present}
        self._objecting &= present
        self.holders &= present
        self.nodes = {address: node for address, node in self.nodes.items() if node in present}
        for node in sorted(present):
            if node not in self._out and self.again_at.get(node, 0.0) <= self.clock.now():
                self._ask(grid, node)
        came = True
        while came:  # what was not there yet may be, once another answer was taken
            came = False
            for node, question in list(self._out.items()):
                for reply in pulled(grid, question.sent.message_id, question.sent):
                    came = True
                    self._out.pop(node, None)
                    self._answer(node, question.asked, reply)

    def _ask(self, grid: Grid, node: int) -> None:
        # A challenge for each node: what one node's organisation has signed is no answer of another node.
        asked = Asked(self.coordinator, self.run, Digest("0x" + secrets.token_hex(32)))
        message = Message(Bind(asked, self.domain).to_content(), node, BIND, group_id="bind")
        if any(grid.push_messages([message])):  # else it has gone in between
            self._out[node] = _Question(asked, message.metadata)

    def _answer(self, node: int, asked: Asked, reply: Message) -> None:
        """Take a node's answer; one that failed is asked again after a while, unless it objects to the question."""
        failure, lasting = failure_of(reply)
        if failure:
            self.again_at[node] = float("inf") if lasting else self.clock.now() + _AGAIN_SECONDS
            self._objecting |= {node} if lasting else set()
            self.fail(node, failure)
            return
        self.again_at[node] = float("inf")
        owners = {member.name.casefold(): member.address for member in self.organisations.values()}
        for signed, public in self.verified(node, reply, asked):
            self._take(node, signed, public, owners)

    def fail(self, node: int, reason: str) -> None:
        """Remember why a node speaks for nobody."""
        self.failure = one_line(reason)
        if (node, self.failure) not in self._noted:
            self._noted.add((node, self.failure))
            self.note(node, self.failure)

    def rebind(self, grid: Grid) -> None:
        """Ask every node anew: what was signed for members of whom some are dropped holds no more.

        Whoever was dropped has held a place: it is waited for another, as long as `wait` would have waited.
        """
        self.again_at.clear()
        self._out.clear()
        self.registrations.clear()
        self._ask_until_complete(grid)

    def note_holder(self, organisation: Address, *, holds: bool) -> None:
        """Note whether an organisation's node has the genesis: one that refuses a message is sent it once more."""
        if (node := self.nodes.get(organisation)) is not None:
            (self.holders.add if holds else self.holders.discard)(node)

    def drop(self, organisations: Iterable[Address], reason: str) -> None:
        """Leave organisations out of what is founded, for good."""
        for organisation in organisations:
            self.dropped.add(organisation)
            self.failure = f"{self.organisations.pop(organisation).name} {reason}"
            for known in (self.nodes, self.public_keys, self.registrations):
                known.pop(organisation, None)

    def _take(self, node: int, signed: Signed[Registration], public: PublicKey, owners: dict[str, Address]) -> None:
        """Bind an organisation to the node that spoke for it, if it may found; `owners` are those of known names."""
        registered = signed.value.organisation
        member = replace(registered, address=self.keys.owner(registered.address))
        if self.keys.signing(member.address) != registered.address:
            self.fail(node, f"{member.name}: its key was replaced by another")
            return
        if member.address in self.dropped:
            return
        taken = [member.name] if owners.get(member.name.casefold(), member.address) != member.address else []
        if fault := self.founders.fault(signed.value, taken):
            self.fail(node, fault)
            return
        # The first node to prove a key keeps its organisation: a second one cannot take it over.
        if self.nodes.setdefault(member.address, node) == node:
            self.organisations[member.address] = member
            owners[member.name.casefold()] = member.address
            self.public_keys[member.address] = public
            self.registrations[member.address] = signed
            if (theirs := signed.value.product) != self.product:
                self.differs(member.address, theirs)

    def wait(self, grid: Grid, expected: int, timeout: float) -> None:
        """Ask until so many organisations are bound; 0: as many as the nodes know of.

        Raises RunError when they are not within `timeout` seconds, or when as many nodes object to the question;
        ConfigError where nobody knows how many there are.
        """
        started = self.clock.now()
        self.expected, self.deadline = expected, started + timeout
        if not self._ask_until_complete(grid):
            goal, seconds = self.expected or self.known, self.clock.now() - started
            answered = f"{len(self.nodes)} of {goal or 'at least 1'} organisations answered in {seconds:.0f} s"
            reason = f"a node failed: {self.failure}" if self.failure else "nodes that are not up, or a busy machine"
            raise RunError(f"{answered}; {reason}")

    def wait_for_answers(self, grid: Grid) -> None:
        """Ask until nobody who was asked has still to answer, until the deadline of `wait`."""
        self.refresh(grid)
        while self._out and self.clock.now() <= self.deadline:
            self.clock.sleep(_POLL_SECONDS)
            self.refresh(grid)

    def _ask_until_complete(self, grid: Grid) -> bool:
        """Whether so many organisations are bound before the deadline as are waited for."""
        while True:
            self.refresh(grid)
            if len(self.nodes) >= (self.expected or self.known) > 0:
                return True
            hopeless = len(self._objecting) >= max(self.expected, 1) and not self.nodes and not self._out
            if hopeless or self.clock.now() > self.deadline:
                return False
            # An organisation with a key of its own knows of itself alone: no count to wait for would ever come.
            if not self.expected and not self.known and self.nodes:
                names = listed(sorted(member.name for member in self.organisations.values()))
                raise ConfigError(f"organisations: expected the number to wait for, got 0, and nodes of {names}")
            self.clock.sleep(_POLL_SECONDS)

    def verified(self, node: int, reply: Message, asked: Asked) -> Iterator[tuple[Signed[Registration], PublicKey]]:
        """The registrations that were signed, and the keys; a node that lies about one organisation loses all of them.

        A node speaks for one organisation, unless their keys are derived, as in a simulation.
        """
        try:
            bound = Bound.from_content(reply.content, self.most)
            members = [(signed, signed.public_key(self.domain)) for signed in bound.registrations]
            own = [verified_registration(signed, self.domain, asked) for signed in bound.registrations]
        # The boundary: one node's answer, whatever it holds, must not end the founding for all others.
        except Exception as error:  # noqa: BLE001
            what = str(error)[:_LONGEST_REASON] if isinstance(error, FormatError) else type(error).__name__
            self.fail(node, f"its answer does not hold: {what}")
            return
        if len(own) > 1 and not all(member.derived for member in own):
            self.fail(node, f"expected one organisation of a node, got {len(own)}")
            return
        # An organisation with a key of its own knows of itself: by another count it would have all others waited for.
        if all(member.derived for member in own):
            self.known = max(self.known, bound.known)
        yield from members


def failure_of(reply: Message) -> tuple[str, bool]:
    """Why a node could not answer, by its error or its refusal, "" when it did; and whether waiting changes nothing."""
    if reply.has_error():
        return last_line(reply.error.reason), False
    try:
        refusal = Refusal.from_content(reply.content)
    except FormatError:
        return "", False
    return (refusal.detail or refusal.cause, refusal.lasting) if refusal else ("", False)
