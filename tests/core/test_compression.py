"""Compressed numbers: what is lost, what is not, and which bytes are refused."""

import os
import subprocess
import sys
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from core import compression
from core.compression import BLOCK, FORMS, KEPT, NF4, SPARSE_BLOCK, Bytes, Float32, checked
from core.errors import FormatError
from tests import cpus

ORDINARY = st.floats(-1e6, 1e6, width=32)
ANY = st.floats(-(2.0**99), 2.0**99, width=32)
NUMBERS = hnp.arrays(np.float32, st.integers(0, 600), elements=ORDINARY | ANY)


def data_of(form: str, numbers: Float32) -> Bytes:
    return np.frombuffer(FORMS[form].encode(numbers), np.uint8)


def back(form: str, numbers: Float32) -> Float32:
    return FORMS[form].decode(data_of(form, numbers), numbers.size)


def normal(count: int, seed: int = 1) -> Float32:
    return np.random.default_rng(seed).normal(size=count).astype(np.float32)


@pytest.mark.parametrize("form", FORMS)
@given(numbers=NUMBERS)
def test_encoding_what_was_decoded_gives_the_same_bytes(form: str, numbers: Float32) -> None:
    decoded = back(form, numbers)
    assert decoded.dtype == np.float32
    assert decoded.shape == numbers.shape
    assert FORMS[form].encode(decoded) == FORMS[form].encode(numbers)
    assert len(FORMS[form].encode(numbers)) <= FORMS[form].most(numbers.size)


@pytest.mark.parametrize(("form", "lost"), [("bf16", 0.002), ("int8", 0.01), ("nf4", 0.1), ("sparse", 0.85)])
def test_as_much_is_lost_of_normal_numbers_as_the_form_allows(form: str, lost: float) -> None:
    numbers = normal(100 * SPARSE_BLOCK)
    assert np.linalg.norm(back(form, numbers) - numbers) < lost * np.linalg.norm(numbers)


def test_int8_is_off_by_half_a_step_of_its_block_at_most() -> None:
    numbers = normal(10 * BLOCK)
    blocks, decoded = numbers.reshape(-1, BLOCK), back("int8", numbers).reshape(-1, BLOCK)
    steps = np.abs(blocks).max(axis=1, keepdims=True) / 127
    # The scale is rounded, too: the largest number may be a little beyond the last step.
    assert (np.abs(decoded - blocks) <= 1.01 * steps / 2 + 127 * steps / 256).all()


def test_nf4_gives_levels_times_the_scale_of_the_block() -> None:
    numbers = normal(BLOCK)
    decoded = back("nf4", numbers)
    scale = np.abs(decoded).max()
    assert np.isin(decoded, NF4 * scale).all()
    assert abs(scale / np.abs(numbers).max() - 1) <= 1 / 32


def test_sparse_keeps_the_largest_of_each_block_and_their_signs() -> None:
    numbers = normal(3 * SPARSE_BLOCK)
    decoded = back("sparse", numbers)
    for block, own in zip(decoded.reshape(3, -1), numbers.reshape(3, -1), strict=True):
        largest = set(np.argsort(-np.abs(own))[:KEPT].tolist())
        assert set(np.flatnonzero(block).tolist()) == largest
        assert (np.sign(block[block != 0]) == np.sign(own[block != 0])).all()


def test_of_equal_numbers_sparse_keeps_the_first() -> None:
    decoded = back("sparse", np.full(SPARSE_BLOCK, -2.0, np.float32))
    assert np.flatnonzero(decoded).tolist() == list(range(KEPT))
    assert (decoded[:KEPT] == -2.0).all()


@pytest.mark.parametrize("form", FORMS)
def test_what_was_zero_stays_zero(form: str) -> None:
    numbers = normal(1000)
    numbers[::3] = 0
    assert not back(form, numbers)[::3].any()
    assert not back(form, np.zeros(70, np.float32)).any()


def test_a_block_far_below_the_largest_becomes_zero() -> None:
    numbers = np.concatenate([np.full(BLOCK, 1.0), np.full(BLOCK, 2.0**-17), np.full(BLOCK, 2.0**-15)])
    decoded = back("nf4", numbers.astype(np.float32)).reshape(3, -1)
    assert decoded.max(axis=1).tolist() == [1.0, 0.0, 2.0**-15]


@pytest.mark.parametrize("form", FORMS)
def test_many_numbers_are_written_piece_by_piece_to_the_same_bytes(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = normal(20 * SPARSE_BLOCK + 7)
    whole = FORMS[form].encode(numbers)
    monkeypatch.setattr(compression, "_PIECE", 3)
    assert FORMS[form].encode(numbers) == whole


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2.0**100, -(2.0**120)])
def test_numbers_that_no_product_may_reach_are_refused(value: float) -> None:
    numbers = normal(10)
    numbers[3] = value
    with pytest.raises(FormatError, match="finite numbers below"):
        checked(numbers)


EIGHT = np.array([1, -0.5, 0, -32.0, 0.3, 3e-9, 7.25, -1.7], np.float32)
GOLDEN = {
    "bf16": (
        "803f00bf000000c29a3e4e31e840dabf",
        [1, -0.5, 0, -32, 0.30078125, 2.9976945370435715e-09, 7.25, -1.703125],
    ),
    "int8": (
        "813e04fe008101001df9",
        [1.0078125, -0.50390625, 0, -31.998046875, 0.251953125, 0, 7.306640625, -1.763671875],
    ),
    "nf4": ("4008ff7707776a", [0, 0, 0, -32, 0, 0, float(np.float32(0.24611230194568634) * 32), -2.91360139846802]),
    "sparse": ("4008ff0203061f", [0, 0, 0, -32, 0, 0, 8, 0]),
}


@pytest.mark.parametrize("form", FORMS)
def test_eight_numbers_are_written_as_they_were_when_this_version_was_made(form: str) -> None:
    written, decoded = GOLDEN[form]
    assert FORMS[form].encode(EIGHT).hex() == written
    assert np.allclose(back(form, EIGHT), np.array(decoded, np.float32), rtol=1e-7)


@pytest.mark.parametrize("form", ["int8", "nf4", "sparse"])
@pytest.mark.parametrize("change", [-1, 1])
def test_bytes_too_many_or_too_few_are_refused(form: str, change: int) -> None:
    data = data_of(form, normal(300))
    other = data[:change] if change < 0 else np.append(data, np.uint8(0))
    with pytest.raises(FormatError, match=r"expected .* bytes, got"):
        FORMS[form].decode(other, 300)


@pytest.mark.parametrize(
    ("form", "start"),
    [
        ("int8", bytes.fromhex("807f")),  # Inf
        ("int8", bytes.fromhex("c0ff")),  # NaN
        ("int8", bytes.fromhex("803f")[::-1]),  # below what is normal
        ("nf4", bytes.fromhex("ffff")),
        ("nf4", bytes.fromhex("f00f")),
        ("sparse", bytes.fromhex("0100")),
    ],
)
def test_scales_that_are_none_are_refused(form: str, start: bytes) -> None:
    data = data_of(form, normal(BLOCK)).copy()
    data[:2] = np.frombuffer(start, np.uint8)
    with pytest.raises(FormatError, match="scales"):
        FORMS[form].decode(data, BLOCK)


@pytest.mark.parametrize("form", FORMS)
@given(data=st.binary(min_size=100, max_size=140), count=st.integers(0, 260))
def test_any_bytes_are_numbers_or_refused(form: str, data: bytes, count: int) -> None:
    source = np.frombuffer(data, np.uint8)
    try:
        assert np.isfinite(FORMS[form].decode(source, count)).all() or form == "bf16"
    except FormatError:
        return


_ELSEWHERE = """
import numpy as np
from core.compression import FORMS
numbers = (np.random.default_rng(3).normal(size=5000) ** 3).astype(np.float32)
for form in FORMS.values():
    data = form.encode(numbers)
    print(data.hex(), form.decode(np.frombuffer(data, np.uint8), numbers.size).tobytes().hex())
"""


@pytest.mark.parametrize("kind", cpus.KINDS)
def test_bytes_and_numbers_are_the_same_with_the_instructions_of_an_older_processor(kind: str) -> None:
    def printed(environment: Mapping[str, str]) -> str:
        command = [sys.executable, "-c", _ELSEWHERE]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    found = printed(cpus.environment(kind))
    assert found == printed(os.environ)
    assert len(found.splitlines()) == len(FORMS)
