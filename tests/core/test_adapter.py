"""AdapterState: one value, one file, one digest; and every other file refused."""

import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from core.adapter import LONGEST_HEADER, AdapterState
from core.errors import FormatError

ARRAYS = st.dictionaries(
    st.text(max_size=12).filter(lambda name: name != "__metadata__"),
    hnp.arrays(
        st.sampled_from(["<f2", "<f4", "<f8"]), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
    ),
    max_size=5,
)


@given(ARRAYS)
def test_the_bytes_of_a_state_come_back_as_it_was(arrays: dict[str, Any]) -> None:
    state = AdapterState(arrays)
    back = AdapterState.from_bytes(state.to_bytes())
    assert back == state
    assert back.to_bytes() == state.to_bytes()
    assert {name: array.tobytes() for name, array in back.arrays.items()} == {
        name: array.tobytes() for name, array in arrays.items()
    }


@given(ARRAYS)
def test_the_safetensors_library_reads_what_is_written(arrays: dict[str, Any]) -> None:
    state = AdapterState(arrays)
    read = safetensors.numpy.load(state.to_bytes())
    assert set(read) == set(state)
    for name, array in read.items():
        assert array.dtype == state[name].dtype
        assert array.shape == state[name].shape
        assert array.tobytes() == state[name].tobytes()


@given(st.dictionaries(st.text("abc.", min_size=1), hnp.arrays("<f4", hnp.array_shapes()), min_size=1))
def test_what_the_safetensors_library_writes_of_one_dtype_is_canonical(arrays: dict[str, Any]) -> None:
    assert AdapterState(arrays).to_bytes() == safetensors.numpy.save(arrays)


@given(ARRAYS, st.randoms())
def test_the_order_of_arrays_does_not_change_the_digest(arrays: dict[str, Any], random: Any) -> None:
    names = list(arrays)
    random.shuffle(names)
    assert AdapterState({name: arrays[name] for name in names}).digest == AdapterState(arrays).digest


A = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.mark.parametrize(
    "changed",
    [
        {"b": A},
        {"a": A.astype(np.float64)},
        {"a": A.reshape(3, 2)},
        {"a": A.reshape(1, 2, 3)},
        {"a": -A},
        {"a": A, "b": A[:0]},
        {},
    ],
    ids=["name", "dtype", "shape", "dimensions", "sign of zero", "an empty array more", "an array less"],
)
def test_the_digest_binds_names_dtypes_shapes_and_bytes(changed: dict[str, Any]) -> None:
    assert AdapterState(changed).digest != AdapterState({"a": A}).digest
    assert AdapterState(changed) != AdapterState({"a": A})


def test_the_memory_order_of_an_array_does_not_matter() -> None:
    assert AdapterState({"a": np.asfortranarray(A)}) == AdapterState({"a": A})
    assert AdapterState({"a": np.repeat(A, 2, axis=1)[:, ::2]}) == AdapterState({"a": A})


@pytest.mark.parametrize("dtype", [">f4", "<i4", "?", "<c8", "O", "u1"])
def test_other_dtypes_are_refused(dtype: str) -> None:
    with pytest.raises(FormatError, match="is not one of F16, F32, F64"):
        AdapterState({"a": np.zeros(2, dtype)})


def test_arrays_cannot_be_written() -> None:
    state = AdapterState({"a": A.copy()})
    with pytest.raises(ValueError, match="read-only"):
        state["a"][0, 0] = 1
    with pytest.raises(TypeError):
        state.arrays["a"] = A  # type: ignore[index]


def test_reading_does_not_copy() -> None:
    data = AdapterState({"a": A}).to_bytes()
    assert np.shares_memory(AdapterState.from_bytes(data)["a"], np.frombuffer(data, np.uint8))


def test_a_state_that_is_not_one_is_not_equal() -> None:
    assert AdapterState({"a": A}) != A.tobytes()
    assert len({AdapterState({"a": A}), AdapterState({"a": A.copy()})}) == 1


# --- files that say the same, or nothing, in another way ------------------------------------------------------------

DATA = A.tobytes()
ENTRY = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}


def file(header: object, data: bytes = DATA, *, pad: bytes = b" ", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    text += pad * (-len(text) % 8)
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(**changes: object) -> bytes:
    return file({"a": ENTRY | changes})


def test_the_reference_file_of_these_tests_is_the_canonical_one() -> None:
    assert file({"a": ENTRY}) == AdapterState({"a": A}).to_bytes()


TWO = {"a": ENTRY, "b": ENTRY | {"data_offsets": [24, 48]}}
VARIANTS: dict[str, Callable[[], bytes]] = {
    "empty file": lambda: b"",
    "seven bytes": lambda: bytes(7),
    "no header": lambda: bytes(8),
    "header longer than the file": lambda: file({"a": ENTRY}, length=10**6),
    "header of 2^64-1 bytes": lambda: file({"a": ENTRY}, length=2**64 - 1),
    "header that is no JSON": lambda: file(b"{nonsense"),
    "header that is no UTF-8": lambda: file(b"\xff\xfe"),
    "header that is a list": lambda: file([]),
    "header nested without end": lambda: file(b'{"a":' + b"[" * 10**5 + b"]" * 10**5 + b"}"),
    "header with white space": lambda: file(json.dumps({"a": ENTRY}).encode()),
    "header padded with line feeds": lambda: file({"a": ENTRY}, pad=b"\n"),
    "header padded by eight more": lambda: file(json.dumps({"a": ENTRY}, separators=(",", ":")).encode() + b" " * 8),
    "header behind a space": lambda: file(b" " + json.dumps({"a": ENTRY}, separators=(",", ":")).encode()),
    "metadata": lambda: file({"__metadata__": {"format": "pt"}, "a": ENTRY}),
    "names out of order": lambda: file(dict(reversed(TWO.items())), DATA * 2),
    "data out of order": lambda: file(
        {"a": ENTRY | {"data_offsets": [24, 48]}, "b": ENTRY | {"data_offsets": [0, 24]}}, DATA * 2
    ),
    "fields out of order": lambda: file({"a": dict(reversed(ENTRY.items()))}),
    "a name twice": lambda: file(b'{"a":%b,"a":%b}' % ((json.dumps(ENTRY, separators=(",", ":")).encode(),) * 2)),
    "a name spelt with an escape": lambda: file(
        json.dumps({"a": ENTRY}, separators=(",", ":")).replace("a", "\\u0061", 1).encode()
    ),
    "a name beyond ASCII as UTF-8": lambda: file(
        json.dumps({"ü": ENTRY}, separators=(",", ":"), ensure_ascii=False).encode()
    ),
    "a gap before the data": lambda: file({"a": ENTRY | {"data_offsets": [8, 32]}}, bytes(8) + DATA),
    "a gap between arrays": lambda: file({"a": ENTRY, "b": ENTRY | {"data_offsets": [32, 56]}}, DATA + bytes(8) + DATA),
    "overlapping arrays": lambda: file({"a": ENTRY, "b": ENTRY | {"data_offsets": [12, 36]}}, DATA + DATA[:12]),
    "arrays on one place": lambda: file({"a": ENTRY, "b": ENTRY}),
    "trailing bytes": lambda: file({"a": ENTRY}, DATA + b"\x00"),
    "data cut short": lambda: file({"a": ENTRY}, DATA[:-1]),
    "offsets beyond the file": lambda: entry(data_offsets=[0, 2**80]),
    "negative offsets": lambda: entry(data_offsets=[-24, -1]),
    "offsets backwards": lambda: entry(data_offsets=[24, 0]),
    "offsets that are floats": lambda: entry(data_offsets=[0.0, 24.0]),
    "offsets that are null": lambda: entry(data_offsets=[None, None]),
    "three offsets": lambda: entry(data_offsets=[0, 12, 24]),
    "no offsets": lambda: file({"a": {"dtype": "F32", "shape": [2, 3]}}),
    "a field more": lambda: entry(stride=1),
    "another dtype than the data": lambda: entry(dtype="F16"),
    "a dtype that adapters do not have": lambda: entry(dtype="I32"),
    "brain floats": lambda: entry(dtype="BF16", shape=[4, 3]),
    "a dtype in lower case": lambda: entry(dtype="f32"),
    "a dtype that is a list": lambda: entry(dtype=["F32"]),
    "a larger shape": lambda: entry(shape=[2, 4]),
    "a smaller shape": lambda: entry(shape=[2, 2]),
    "a negative shape": lambda: entry(shape=[-2, -3]),
    "a shape of minus one": lambda: entry(shape=[-1, 3]),
    "a huge shape": lambda: entry(shape=[2**70]),
    "an empty huge shape": lambda: entry(shape=[0, 2**62], data_offsets=[0, 0]),
    "a shape of truths": lambda: file({"a": ENTRY | {"shape": [True], "data_offsets": [0, 4]}}, DATA[:4]),
    "a shape of floats": lambda: entry(shape=[2.0, 3.0]),
    "a shape that is a number": lambda: entry(shape=6),
    "a shape of a hundred dimensions": lambda: entry(shape=[1] * 98 + [2, 3]),
    "an entry that is a list": lambda: file({"a": [1, 2]}),
    "an entry that is null": lambda: file({"a": None}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_other_file_is_read(variant: str) -> None:
    with pytest.raises(FormatError):
        AdapterState.from_bytes(VARIANTS[variant]())


@given(st.binary(max_size=64))
def test_any_bytes_are_a_state_or_a_format_error(data: bytes) -> None:
    try:
        state = AdapterState.from_bytes(data)
    except FormatError:
        return
    assert state.to_bytes() == data


@given(st.integers(0, 10**6), st.integers(0, 255))
def test_a_changed_byte_is_refused_or_changes_the_digest(position: int, value: int) -> None:
    data = bytearray(AdapterState({"a": A}).to_bytes())
    position %= len(data)
    changed = data[position] != value
    data[position] = value
    try:
        state = AdapterState.from_bytes(bytes(data))
    except FormatError:
        return
    assert (state.digest != AdapterState({"a": A}).digest) == changed


def test_a_header_above_its_bound_is_refused_unread() -> None:
    header = b"{" + b" " * LONGEST_HEADER + b"}"
    with pytest.raises(FormatError, match=f"header: expected at most {LONGEST_HEADER} bytes"):
        AdapterState.from_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(FormatError, match="header: expected at most 1 bytes, got 2"):
        AdapterState.from_bytes((2).to_bytes(8, "little") + b"{}", longest_header=1)
