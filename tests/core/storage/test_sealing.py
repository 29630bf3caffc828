"""Sealed bytes: opened by every reader, by nobody else, and by nobody once they were changed."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import keys
from core.canonical import from_json, to_json
from core.errors import FormatError, IntegrityError
from core.storage.sealing import Wraps, seal, unseal

READERS = [keys.derive(1, name) for name in ("coordinator", "hospital", "auditor")]
STRANGER = keys.derive(1, "stranger")
KEY, LABEL = bytes(range(32)), b"blocks/ab/cd"
WRAPS = Wraps.of(KEY, LABEL, [reader.public for reader in READERS])


@given(parts=st.lists(st.binary()))
def test_what_was_sealed_in_parts_is_unsealed_whole(parts: list[bytes]) -> None:
    sealed = b"".join(seal(KEY, LABEL, parts))
    assert unseal(KEY, LABEL, sealed) == b"".join(parts)
    assert len(sealed) == sum(map(len, parts)) + 16


@pytest.mark.parametrize("position", [0, 3, -1])
def test_a_changed_byte_is_refused(position: int) -> None:
    sealed = bytearray(b"".join(seal(KEY, LABEL, [b"update"])))
    sealed[position] ^= 1
    with pytest.raises(IntegrityError, match="were changed"):
        unseal(KEY, LABEL, bytes(sealed))


@pytest.mark.parametrize("sealed", [b"", b"short", bytes(16)])
def test_what_was_never_sealed_is_refused(sealed: bytes) -> None:
    with pytest.raises(IntegrityError):
        unseal(KEY, LABEL, sealed)


def test_what_is_sealed_under_one_name_is_worth_nothing_under_another() -> None:
    sealed = b"".join(seal(KEY, LABEL, [b"update"]))
    with pytest.raises(IntegrityError):
        unseal(KEY, b"blocks/ab/ce", sealed)
    with pytest.raises(IntegrityError, match="does not open"):
        WRAPS.open(b"blocks/ab/ce", READERS[0])


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_opens_the_key(reader: keys.Key) -> None:
    assert WRAPS.open(LABEL, reader) == KEY


def test_nobody_else_opens_it() -> None:
    with pytest.raises(IntegrityError, match=f"got that of {STRANGER.address}"):
        WRAPS.open(LABEL, STRANGER)
    stolen = replace(WRAPS, wraps={STRANGER.address: WRAPS.wraps[READERS[0].address]})
    with pytest.raises(IntegrityError, match="does not open"):
        stolen.open(LABEL, STRANGER)


def test_the_wraps_follow_from_the_key_so_that_an_auditor_can_compute_them_again() -> None:
    assert Wraps.of(KEY, LABEL, [reader.public for reader in READERS]) == WRAPS
    fewer = Wraps.of(KEY, LABEL, [READERS[1].public])
    assert fewer.wraps[READERS[1].address] == WRAPS.wraps[READERS[1].address]


def test_wraps_of_another_key_or_name_share_nothing() -> None:
    for other in (Wraps.of(bytes(32), LABEL, [READERS[0].public]), Wraps.of(KEY, b"x", [READERS[0].public])):
        assert other.ephemeral != WRAPS.ephemeral
        assert other.wraps[READERS[0].address] != WRAPS.wraps[READERS[0].address]


def test_wraps_come_back_from_their_canonical_json() -> None:
    assert Wraps.from_dict(from_json(to_json(WRAPS.to_dict()))) == WRAPS


@pytest.mark.parametrize(
    "change",
    [
        {"ephemeral": None},
        {"ephemeral": "0x02" + "00" * 32},
        {"ephemeral": "0x04" + "11" * 32},
        {"wraps": []},
        {"wraps": {"me": "00" * 48}},
        {"wraps": {READERS[0].address: "00" * 47}},
        {"wraps": {READERS[0].address: "AA" * 48}},
        {"wraps": {READERS[0].address: 5}},
        {"more": 1},
    ],
    ids=str,
)
def test_malformed_wraps_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        Wraps.from_dict(WRAPS.to_dict() | change)


def test_wraps_without_a_field_are_refused() -> None:
    with pytest.raises(FormatError, match="malformed key wraps"):
        Wraps.from_dict({"ephemeral": WRAPS.ephemeral})


def test_a_public_key_leads_to_its_address() -> None:
    assert keys.address_of(STRANGER.public) == STRANGER.address
    assert keys.public_key(STRANGER.public) == STRANGER.public


@pytest.mark.parametrize("value", [None, 5, "", "0x", "0x02" + "11" * 31, STRANGER.public.upper(), STRANGER.address])
def test_what_is_no_point_is_no_public_key(value: object) -> None:
    with pytest.raises(FormatError):
        keys.public_key(value)
