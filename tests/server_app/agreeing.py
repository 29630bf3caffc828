"""Organisations with keys of their own, each on its node: they register, show their nonces and consent for real."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client_app.agreement import Agreement, Pins
from console.backends.inline import InlineGrid
from core.errors import FoedusError
from core.keys import Domain, Key
from core.messages import queries
from core.messages.queries import BIND, CONSENT, Bind, Bound, ConsentQuery, RevealQuery
from core.messages.refusal import Cause, Refusal, Refused
from core.signed import Signed
from core.update import Asked, Organisation, Registration
from tests import federation as f


def own_key(number: int) -> Key:
    """A key that nobody derives."""
    return Key(number.to_bytes(32, "big"))


def registered(key: Key, member: Organisation, asked: Asked, chain: Domain) -> Signed[Registration]:
    """A member's registration, with a commitment to its nonce."""
    plain = Registration(member, asked.coordinator, asked.run, asked.challenge)
    return Agreement(Path("no memory is needed"), key).register(plain, chain)


Behaviour = Callable[["Member", Message], RecordDict]


@dataclass
class Member:
    """One organisation on a node of its own, with its memory; `behave` replaces its answers by type of message."""

    folder: Path
    key: Key
    name: str
    examples: int = 100
    pins: Pins = Pins()  # noqa: RUF009 - frozen
    behave: Mapping[str, Behaviour] = field(default_factory=dict)

    @property
    def organisation(self) -> Organisation:
        return Organisation(self.key.address, self.name, self.examples, self.key.derived)

    @property
    def agreement(self) -> Agreement:
        return Agreement(self.folder / f"{self.key.address}.jsonl", self.key)

    def answer(self, message: Message) -> RecordDict:
        kind = message.metadata.message_type
        if kind in self.behave:
            return self.behave[kind](self, message)
        if kind == BIND:
            query = Bind.from_content(message.content)
            return Bound((registered(self.key, self.organisation, query.asked, query.chain),), 0).to_content()
        if kind == CONSENT:
            genesis = ConsentQuery.from_content(message.content).genesis
            self.pins.check(genesis)
            return queries.consented(self.agreement.consent(genesis))
        query = RevealQuery.from_content(message.content)
        return queries.revealed(self.agreement.reveal(query.registrations, query.chain))


class AgreeingGrid(InlineGrid):
    """A node for each member."""

    def __init__(self, *members: Member) -> None:
        def client(message: Message, context: Context) -> Message:
            try:
                content = members[context.node_id - 1].answer(message)
            except FoedusError as error:
                content = Refusal(Refused.OBJECTED, Cause.of(error), str(error)[:200]).to_content()
            return Message(content, reply_to=message)

        super().__init__(cast(ClientApp, client), len(members), {})


def refuse(_member: Member, _message: Message) -> RecordDict:
    """An answer that agrees to nothing."""
    return Refusal(Refused.OBJECTED, Cause.of(ValueError()), "no").to_content()


def members(folder: Path, *names: str, **changes: Any) -> list[Member]:
    """Members with keys of their own."""
    return [Member(folder, own_key(1000 + i), name, **changes) for i, name in enumerate(names)]


def others_nonce(_member: Member, _message: Message) -> RecordDict:
    """Another nonce than the one that it has committed to."""
    return queries.revealed(f.other("another nonce"))
