"""Canonical JSON and digests: one value, one spelling, one name."""

import hashlib
import subprocess
import sys
from enum import IntEnum, StrEnum
from typing import Any

import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from core.canonical import (
    LARGEST,
    ZERO_DIGEST,
    Digest,
    address,
    commitment,
    digest,
    domain,
    from_json,
    parse_json,
    raw,
    to_json,
)
from core.errors import FormatError

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(1 - 2**53, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(PLAIN)
def test_plain_data_comes_back_as_it_went(value: Any) -> None:
    assert from_json(to_json(value)) == value


@given(PLAIN)
def test_a_value_has_one_spelling(value: Any) -> None:
    assert to_json(from_json(to_json(value))) == to_json(value)


@given(PLAIN)
def test_every_value_is_spelt_as_the_reference_library_spells_it(value: Any) -> None:
    assert to_json(value) == rfc8785.dumps(value)


@given(st.floats(allow_nan=False, allow_infinity=False) | st.floats(1e-8, 1e-3) | st.floats(1e14, 1e24))
@example(1e-4)
@example(1e16)
@example(-9999999999999998.0)
def test_every_number_is_spelt_as_the_reference_library_spells_it(value: float) -> None:
    assert to_json([value, -value]) == rfc8785.dumps([value, -value])


class Colour(StrEnum):
    red = "red"


class Level(IntEnum):
    high = 3


@pytest.mark.parametrize("value", [Colour.red, Level.high, {Colour.red: 1}, (1, [True, None]), [], {}, {"a": ()}])
def test_kinds_of_text_and_numbers_are_spelt_as_what_they_are(value: Any) -> None:
    assert to_json(value) == rfc8785.dumps(value)


@pytest.mark.parametrize("value", ["\ud800", {"\ud800": 1}, {1: 2}, {None: 2}, {"a": {2}}])
def test_text_that_is_no_unicode_and_other_keys_are_refused(value: object) -> None:
    with pytest.raises(FormatError, match="not representable"):
        to_json(value)


@given(st.dictionaries(st.text(), st.integers(1 - 2**53, 2**53 - 1), min_size=2))
def test_the_order_of_keys_does_not_matter(value: dict[str, int]) -> None:
    assert to_json(dict(reversed(value.items()))) == to_json(value)


@pytest.mark.parametrize(
    "data",
    [
        b'{"b":1,"a":2}',
        b'{"a": 1}',
        b'{"a":1}\n',
        b' {"a":1}',
        b'{"a":1,"a":1}',
        b'{"a":"\\u00fc"}',
        b"1e3",
        b"1.50",
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b'"\\u00FC"',
        b'"\\/"',
        b"\xef\xbb\xbf1",
        "1".encode("utf-16"),
        b"\xff",
        b"",
        b"{",
        b"01",
        b"1" * 5000,
    ],
)
def test_any_other_spelling_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        from_json(data)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": -float("inf")}, b"bytes", {1j}, object()])
def test_what_json_cannot_say_is_refused(value: object) -> None:
    with pytest.raises(FormatError, match="not representable"):
        to_json(value)


def test_text_is_written_as_rfc_8785_has_it() -> None:
    # Section 3.2.3: keys are in order of their UTF-16 code units, where the emoji comes before the Hebrew letter.
    assert to_json({"\ufb33": "Zürich", "\U0001f600": "\u2028\n"}) == (
        '{"\U0001f600":"\u2028\\n","\ufb33":"Zürich"}'.encode()
    )


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (4.50, b"4.5"),
        (2e-3, b"0.002"),
        (1e-27, b"1e-27"),
        (333333333.33333329, b"333333333.3333333"),
        (1e30, b"1e+30"),
        (9007199254740992.0, b"9007199254740992"),
        (1e20, b"100000000000000000000"),
        (-0.0, b"0"),
    ],
)
def test_numbers_are_written_as_rfc_8785_has_them(number: float, text: bytes) -> None:
    assert to_json(number) == text
    assert from_json(text) == number


@pytest.mark.parametrize("value", [2**53, -(2**53), 10**400])
def test_integers_that_doubles_cannot_tell_apart_are_refused(value: int) -> None:
    with pytest.raises(FormatError, match="not representable"):
        to_json(value)


def test_nesting_is_bounded() -> None:
    assert parse_json(b"[" * 32 + b"]" * 32) is not None
    with pytest.raises(FormatError, match=r"at most 32 .* got 33"):
        parse_json(b"[" * 33 + b"]" * 33)


def test_deep_nesting_does_not_end_the_process() -> None:
    # In a process of its own: without the bound, this is a segmentation fault.
    hostile = "from core import keys; from core.canonical import from_json; from_json(b'['*10**6 + b']'*10**6)"
    done = subprocess.run([sys.executable, "-c", hostile], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "FormatError" in done.stderr


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
def test_text_in_another_encoding_is_refused_however_deep_it_nests(encoding: str) -> None:
    # As bytes of UTF-16 this character has a quotation mark, behind which a count of bytes sees no bracket.
    nested = '["\u2200",' + "[" * 200_000 + "]" * 200_000 + "]"
    with pytest.raises(FormatError):
        parse_json(nested.encode(encoding))


def test_json_above_its_bound_is_refused_unread() -> None:
    assert parse_json(b"[1]", most=3) == [1]
    with pytest.raises(FormatError, match="expected at most 3 bytes, got 4"):
        parse_json(b"[12]", most=3)
    with pytest.raises(FormatError, match=f"at most {LARGEST} bytes"):
        from_json(b" " * (LARGEST + 1))


def test_recursion_is_limited_with_every_library_loaded() -> None:
    # py_ecc, which the signatures bring, sets the limit so high that deep recursion ends the process.
    loaded = "import core.keys, chain.ledger, client_app.app, server_app.app, sys; print(sys.getrecursionlimit())"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert int(done.stdout) <= 10_000


@given(st.text(alphabet='[]{}\\"a'))
def test_brackets_inside_text_do_not_count_as_nesting(text: str) -> None:
    value = {text * 20: [text * 20]}
    assert from_json(to_json(value)) == value


@pytest.mark.parametrize("data", [b'"\\"' * 10**5, b'"' + b"\\" * 10**5, b'"' * (10**5 + 1), b"]" * 10**5])
def test_broken_text_is_refused_in_linear_time(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_json(data)


def test_a_digest_is_sha256_under_the_nouns_tag() -> None:
    assert domain("adapter") == b"foedus/adapter/v1\x00"
    assert digest("adapter", b"abc") == "0x" + hashlib.sha256(b"foedus/adapter/v1\x00abc").hexdigest()


@given(st.binary())
def test_bytes_of_one_noun_never_pass_for_another(data: bytes) -> None:
    assert digest("genesis", data) != digest("round", data)


@given(st.binary(min_size=32, max_size=32))
def test_the_bytes_behind_a_digest_come_back(data: bytes) -> None:
    assert raw(Digest("0x" + data.hex())) == data


@pytest.mark.parametrize(
    "value",
    ["", "0x", "ab" * 32, "0x" + "ab" * 31, "0x" + "AB" * 32, "0x" + "ab " * 32, "0x" + "ab" * 32 + "\n", 5, None],
)
def test_a_digest_has_one_spelling(value: Any) -> None:
    with pytest.raises(FormatError):
        raw(value)


@pytest.mark.parametrize("value", ["", "0x" + "ab" * 19, "ab" * 20, "0x" + "zz" * 20, 7, None, ["0x" + "ab" * 20]])
def test_an_address_is_forty_hex_digits(value: object) -> None:
    with pytest.raises(FormatError):
        address(value)


def test_a_commitment_hides_and_binds() -> None:
    first = commitment(bytes(32), ZERO_DIGEST)
    assert first == "0x" + hashlib.sha256(b"foedus/commitment/v1\x00" + bytes(64)).hexdigest()
    assert first != commitment(b"\x01" + bytes(31), ZERO_DIGEST)
    assert first != commitment(bytes(32), digest("adapter", b""))


@pytest.mark.parametrize("salt", [b"", bytes(31), bytes(33)])
def test_a_salt_has_32_bytes(salt: bytes) -> None:
    with pytest.raises(FormatError, match="32 bytes"):
        commitment(salt, ZERO_DIGEST)


@pytest.mark.parametrize("data", [b'{"a":1,"a":1}', b'[{"b":{"a":1,"\\u0061":2}}]'])
def test_an_object_with_a_field_twice_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match="expected each field once, got 'a' twice"):
        parse_json(data)
