"""States as they travel: one spelling in each form, and every other one refused before it costs much."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from core.adapter import AdapterState
from core.canonical import ZERO_DIGEST
from core.compression import FORMS
from core.errors import FormatError
from core.wire import DOWN, MOST_NUMBERS, Packed, Rounded, most_bytes, to_send
from tests import federation as f

STATE = f.update_of(f.genesis(), "medical")
COMPRESSED = tuple(FORMS)
MATRICES = st.dictionaries(
    st.text("abc.", max_size=9),
    hnp.arrays(np.float32, st.tuples(st.integers(0, 5), st.integers(0, 70)), elements=st.floats(-9, 9, width=32)),
    max_size=4,
)


@pytest.mark.parametrize("form", DOWN)
@given(arrays=MATRICES)
def test_what_travels_says_names_and_shapes_and_is_written_in_one_way(form: str, arrays: dict[str, np.ndarray]) -> None:
    state = AdapterState(arrays)
    packed = Packed.of(state, form)
    assert packed.form == form
    assert packed.shapes == state.shapes == packed.state.shapes
    assert Packed(packed.data).state == packed.state
    assert Packed.of(packed.state, form).data == packed.data
    assert Packed.of(packed.state, form).digest == packed.digest


def test_in_fp32_bytes_and_digest_are_the_states_own() -> None:
    packed = Packed.of(STATE, "fp32")
    assert packed.data == STATE.to_bytes() == b"".join(packed.parts())
    assert packed.digest == STATE.digest
    assert packed.state == STATE


@pytest.mark.parametrize("form", COMPRESSED)
def test_forms_have_digests_of_their_own(form: str) -> None:
    digests = {Packed.of(STATE, other).digest for other in DOWN}
    assert len(digests) == len(DOWN)
    assert Packed.of(STATE, form).digest != Packed.of(STATE, form).state.digest


@pytest.mark.parametrize("form", COMPRESSED)
def test_no_bytes_are_read_in_two_forms(form: str) -> None:
    with pytest.raises(FormatError):
        AdapterState.from_bytes(Packed.of(STATE, form).data)


@pytest.mark.parametrize("form", DOWN)
def test_a_state_takes_no_more_than_the_most(form: str) -> None:
    shapes = {f"model.layers.{index}.lora_B": (320, 16) for index in range(4)}
    data = Packed.of(f.delta(shapes, 1), form).data
    assert len(data) <= most_bytes(shapes, form) + 4 * 100 + 20


def changed(data: bytes, at: int, to: int) -> bytes:
    return data[:at] + bytes([to]) + data[at + 1 :]


def packed(form: str = "int8") -> bytes:
    return bytes(Packed.of(STATE, form).data)


HEADER = 12
REFUSED: dict[str, Callable[[], bytes]] = {
    "a form of no number": lambda: changed(packed(), 7, 0),
    "a form that nobody knows": lambda: changed(packed(), 7, 9),
    "a magic alone": lambda: packed()[:7],
    "no header": lambda: packed()[:12],
    "a header longer than the file": lambda: packed()[:8] + b"\xff\xff\xff\xff" + packed()[12:],
    "a header cut short": lambda: packed()[:8] + bytes([packed()[8] - 3]) + packed()[9:],
    "bytes behind": lambda: packed() + b"\0",
    "bytes missing": lambda: packed()[:-1],
    "names out of order": lambda: b"FOEDUS\x01\x02" + bytes([22, 0, 0, 0])
    + b"\0\x01b\1\0\0\0\0\0\0\0" + b"\0\x01a\1\0\0\0\0\0\0\0",
    "a name twice": lambda: b"FOEDUS\x01\x02" + bytes([22, 0, 0, 0]) + b"\0\x01b\1\0\0\0\0\0\0\0" * 2,
    "a name that is no ASCII": lambda: changed(packed(), HEADER + 2, 0xC3),
    "a prefix that is not shared": lambda: changed(packed(), HEADER, 5),
    "an integer below the lowest": lambda: changed(packed(), len(packed()) - 1, 0x80),
    "more numbers than there are bytes": lambda: changed(packed("sparse"), HEADER + 2 + 14, 200),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_other_bytes_are_refused(what: str) -> None:
    with pytest.raises(FormatError):
        _ = Packed(REFUSED[what]()).state


def sparse_of(*kept: int, counts: int | None = None, top: int, code: int = 255) -> bytes:
    """A state of 1 × 300 numbers in the form sparse, with these places of the first block kept, all alike."""
    header = b"\0\x01b" + (1).to_bytes(4, "little") + (300).to_bytes(4, "little")
    start = b"FOEDUS\x01\x04" + len(header).to_bytes(4, "little") + header + top.to_bytes(2, "little")
    number = len(kept) if counts is None else counts
    return start + bytes([code, 0, number, 0, *kept]) + b"\x77" * (len(kept) // 2) + b"\x07" * (len(kept) % 2)


def test_the_places_of_a_sparse_state_stand_once_and_in_order() -> None:
    top = 0x7F0  # 1.0
    assert np.flatnonzero(Packed(sparse_of(3, 5, 9, top=top)).state["b"]).tolist() == [3, 5, 9]
    for wrong in (
        sparse_of(5, 3, 9, top=top),
        sparse_of(3, 3, 9, top=top),
        sparse_of(*range(17), top=top),
        sparse_of(3, 5, 9, counts=2, top=top),
        sparse_of(3, 5, 9, counts=200, top=top),
        sparse_of(3, 5, 9, top=0xFFFF),
        sparse_of(3, 5, 9, top=top, code=3),
        sparse_of(3, 5, 9, top=0),
    ):
        with pytest.raises(FormatError):
            _ = Packed(wrong).state


def test_a_place_behind_the_last_number_is_refused() -> None:
    header = b"\0\x01b" + (1).to_bytes(4, "little") + (4).to_bytes(4, "little")
    start = b"FOEDUS\x01\x04" + len(header).to_bytes(4, "little") + header + b"\xf0\x07"
    assert Packed(start + bytes([255, 1, 3, 7])).state["b"].tolist() == [[0, 0, 0, 1.0]]
    with pytest.raises(FormatError):
        _ = Packed(start + bytes([255, 1, 4, 7])).state


@pytest.mark.parametrize("form", COMPRESSED)
def test_a_header_of_more_numbers_than_anybody_has_is_refused_before_they_are_made(form: str) -> None:
    data = packed(form)
    many = data[:12] + b"\0\x01b" + b"\xff\xff\xff\x7f" * 2 + data[12:]
    many = many[:8] + (int.from_bytes(data[8:12], "little") + 11).to_bytes(4, "little") + many[12:]
    with pytest.raises(FormatError, match=f"at most {MOST_NUMBERS} numbers"):
        _ = Packed(many).shapes


def test_a_longer_header_than_asked_for_is_refused() -> None:
    assert Packed(packed(), 1000).shapes == STATE.shapes
    with pytest.raises(FormatError, match="at most 10 bytes"):
        _ = Packed(packed(), 10).shapes


@pytest.mark.parametrize(
    "state",
    [
        AdapterState({"a": np.zeros((2, 2), np.float64)}),
        AdapterState({"a": np.zeros(4, np.float32)}),
        AdapterState({"ü": np.zeros((2, 2), np.float32)}),
        AdapterState({"a" * 300: np.zeros((2, 2), np.float32)}),
        AdapterState({"a": np.full((2, 2), np.nan, np.float32)}),
    ],
    ids=["float64", "no matrix", "a name beyond ASCII", "a long name", "NaN"],
)
@pytest.mark.parametrize("form", COMPRESSED)
def test_a_state_that_a_form_cannot_hold_is_refused(form: str, state: AdapterState) -> None:
    with pytest.raises(FormatError):
        Packed.of(state, form)


@pytest.mark.parametrize("form", COMPRESSED)
def test_every_changed_byte_is_refused_or_gives_another_state(form: str) -> None:
    data, state = packed(form), Packed(packed(form)).state
    for at in range(len(data)):
        other = Packed(changed(data, at, data[at] ^ 0x21))
        assert other.digest != Packed(data).digest
        try:
            assert other.form != form or other.state != state
        except FormatError:
            continue


def test_numbers_are_those_of_the_same_place() -> None:
    state = AdapterState({"a": np.eye(3, dtype=np.float32), "b": -np.ones((2, 4), np.float32)})
    for form in ("bf16", "int8", "nf4"):
        back = Packed.of(state, form).state
        assert all(np.allclose(back[name], state[name], rtol=0.01) for name in state)
    assert math.prod(Packed.of(state, "nf4").shapes["b"]) == 8


@pytest.mark.parametrize("wire", DOWN)
def test_a_state_goes_down_in_the_settings_form_and_is_rounded_once(wire: str) -> None:
    sent = to_send(STATE, wire)
    assert sent.form == DOWN[wire] != "sparse"
    assert to_send(sent.state, wire).state == sent.state
    said, again = Rounded.of(STATE, wire), Rounded.of(sent.state, wire)
    if wire == "fp32":
        assert said == again == (ZERO_DIGEST, 0.0)
        return
    assert said.rounded == sent.state.digest != STATE.digest
    assert 0 < said.rounding < 0.2
    assert again == (said.rounded, 0.0)


def test_a_state_of_zeros_or_of_rank_zero_is_sent_too() -> None:
    for array in (np.zeros((3, 2), np.float32), np.zeros((3, 0), np.float32)):
        state = AdapterState({"a.lora_B": array})
        assert to_send(state, "nf4").state == state
        assert Rounded.of(state, "nf4") == (state.digest, 0.0)


@pytest.mark.parametrize("form", COMPRESSED)
def test_what_can_be_written_can_be_read_up_to_the_largest_number(form: str) -> None:
    largest = np.nextafter(np.float32(2.0**100), np.float32(0))
    packed = Packed.of(AdapterState({"a": np.full((2, 64), largest)}), form)
    assert Packed(packed.data).state["a"].max() > 0.99 * largest
    with pytest.raises(FormatError, match="finite numbers below"):
        Packed.of(AdapterState({"a": np.full((2, 64), np.float32(2.0**100))}), form)
