"""Signed values: nothing counts but the signatures of exactly those who must sign, in their order."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Self

import pytest

from core.canonical import Address, Digest
from core.errors import ForgeryError, FormatError
from core.keys import derive
from core.parsing import parsed
from core.signed import Federation, MemberStatement, Place, Signed
from tests import federation as f

GENESIS = f.genesis()
MEMBER, OTHER = f.key("medical"), f.key("coding")


@dataclass(frozen=True)
class Note(MemberStatement):
    """Signed by its author, and by the coordinator."""

    struct: ClassVar = "Note"
    struct_fields: ClassVar = (("text", "string"),)

    genesis: Digest
    author: Address
    text: str

    def message(self) -> dict[str, Any]:
        return {"text": self.text}

    def federation(self) -> Digest:
        return self.genesis

    def signers(self, federation: Federation, place: Place | None) -> tuple[Address, ...]:
        return self.author, federation.signing(federation.coordinator, place)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        return parsed(cls, data, {})


@dataclass(frozen=True)
class Envelope(Note):
    """A note that holds another."""

    struct: ClassVar = "Envelope"
    inner: Signed[Note] | None = None

    def parts(self) -> tuple[Signed[Note], ...]:
        return (self.inner,) if self.inner else ()


NOTE = Note(GENESIS.digest, MEMBER.address, "hello")
SIGNED = NOTE.sign(MEMBER, GENESIS.chain, f.COORDINATOR)


def test_a_signed_value_comes_back_from_plain_data_and_is_its_signers() -> None:
    assert Signed.parse(Note, SIGNED.to_dict()) == SIGNED
    assert SIGNED.verified(GENESIS) == NOTE
    assert SIGNED.public_key(GENESIS.chain) == MEMBER.public


@pytest.mark.parametrize(
    "keys",
    [(MEMBER,), (f.COORDINATOR, MEMBER), (MEMBER, OTHER), (OTHER, f.COORDINATOR), (MEMBER, f.COORDINATOR, OTHER)],
)
def test_other_signatures_or_another_order_are_a_forgery(keys: Any) -> None:
    first, *others = keys
    with pytest.raises(ForgeryError, match="note: expected"):
        NOTE.sign(first, GENESIS.chain, *others).verified(GENESIS)


def test_a_value_that_was_changed_is_a_forgery() -> None:
    with pytest.raises(ForgeryError, match=MEMBER.address):
        Signed(replace(NOTE, text="hullo"), SIGNED.signatures).verified(GENESIS)


def test_a_signature_is_for_one_chain_and_one_struct() -> None:
    with pytest.raises(ForgeryError):
        NOTE.sign(MEMBER, replace(GENESIS.chain, chain_id=1), f.COORDINATOR).verified(GENESIS)
    envelope = Envelope(GENESIS.digest, MEMBER.address, "hello")
    with pytest.raises(ForgeryError, match="envelope"):
        Signed(envelope, SIGNED.signatures).verified(GENESIS)


def test_a_value_of_another_federation_is_refused() -> None:
    elsewhere = f.genesis(seed=8)
    with pytest.raises(ForgeryError, match=f"expected federation {elsewhere.digest}, got {GENESIS.digest}"):
        SIGNED.verified(elsewhere)


def test_what_a_value_contains_is_verified_with_it() -> None:
    def envelope(inner: Signed[Note]) -> Signed[Envelope]:
        value = Envelope(GENESIS.digest, MEMBER.address, "inside", inner)
        return value.sign(MEMBER, GENESIS.chain, f.COORDINATOR)

    assert envelope(SIGNED).verified(GENESIS).inner == SIGNED
    with pytest.raises(ForgeryError, match="note"):
        envelope(NOTE.sign(OTHER, GENESIS.chain, f.COORDINATOR)).verified(GENESIS)


def test_signers_outside_a_federation_are_named() -> None:
    assert SIGNED.signed_by(GENESIS.chain, MEMBER.address, f.COORDINATOR.address) == NOTE
    stranger = derive(1, "stranger").address
    with pytest.raises(ForgeryError, match=f"expected the signature of {stranger}, got that of {MEMBER.address}"):
        SIGNED.signed_by(GENESIS.chain, stranger, f.COORDINATOR.address)


@pytest.mark.parametrize("signatures", [None, {}, "0x", [5], [None]])
def test_signatures_are_a_list_of_text(signatures: Any) -> None:
    with pytest.raises(FormatError, match="signatures"):
        Signed.parse(Note, SIGNED.to_dict() | {"signatures": signatures})


@pytest.mark.parametrize("signature", ["", "0x", "0x" + "00" * 65, "0x" + "ff" * 65])
def test_what_is_no_signature_is_a_forgery(signature: Any) -> None:
    with pytest.raises(ForgeryError):
        Signed(NOTE, (signature, SIGNED.signatures[1])).verified(GENESIS)
