"""The adapter before any training: the same bits everywhere, and orthonormal."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import lora
from core.errors import ConfigError
from core.lora import Layout, factor, fresh

LAYOUTS = st.builds(
    lambda inputs, outputs, rank: Layout.of({"m": (inputs, outputs)}, min(rank, inputs, outputs)),
    st.integers(1, 24),
    st.integers(1, 24),
    st.integers(1, 8),
)


@given(LAYOUTS, st.binary(max_size=4))
def test_the_rows_of_a_are_orthonormal(layout: Layout, seed: bytes) -> None:
    a = fresh(layout, seed)["m.lora_A"].astype(np.float64)
    np.testing.assert_allclose(a @ a.T, np.eye(layout.rank), atol=2e-7)


@pytest.mark.parametrize("seed", range(40))
def test_narrow_layers_whose_signs_repeat_still_get_full_rank(seed: int) -> None:
    a = fresh(Layout.of({"m": (3, 3)}, 3), bytes([seed]))["m.lora_A"].astype(np.float64)
    np.testing.assert_allclose(a @ a.T, np.eye(3), atol=2e-7)


@given(LAYOUTS)
def test_b_is_zero_so_that_a_fresh_adapter_changes_nothing(layout: Layout) -> None:
    state = fresh(layout, b"seed")
    assert not state["m.lora_B"].any()
    assert state["m.lora_B"].shape == (layout.modules[0][2], layout.rank)
    assert state["m.lora_A"].shape == (layout.rank, layout.modules[0][1])
    assert {array.dtype for array in state.arrays.values()} == {np.dtype(np.float32)}


def test_the_adapter_is_the_same_bits_on_every_machine() -> None:
    layout = Layout.of({"model.q": (64, 32), "model.down": (96, 64)}, 8)
    assert fresh(layout, b"seed").digest == "0x092272bf7d07301e8a192f8d014f08624e013ca54ddda92217c42ab9afb605b8"


def test_modules_draw_apart_and_do_not_shift_each_other() -> None:
    both = fresh(Layout.of({"a": (8, 8), "b": (8, 8)}, 2), b"seed")
    alone = fresh(Layout.of({"b": (8, 8)}, 2), b"seed")
    assert both["a.lora_A"].tobytes() != both["b.lora_A"].tobytes() == alone["b.lora_A"].tobytes()


@given(st.lists(st.lists(st.floats(-1e3, 1e3), min_size=5, max_size=5), min_size=1, max_size=4))
def test_sums_are_rounded_once(rows: list[list[float]]) -> None:
    np.testing.assert_array_equal(lora._sums(np.array(rows)), [[math.fsum(row)] for row in rows])


def test_modules_that_are_drawn_together_are_those_that_are_drawn_alone() -> None:
    # Some narrow ones have rows that depend on each other, and are drawn again.
    modules = {f"m{index:02}": (4, 4) for index in range(40)} | {"wide": (64, 4)}
    together = fresh(Layout.of(modules, 4), b"seed")
    for name, shape in modules.items():
        alone = fresh(Layout.of({name: shape}, 4), b"seed")
        assert alone[f"{name}.lora_A"].tobytes() == together[f"{name}.lora_A"].tobytes()


def test_seeds_draw_apart() -> None:
    layout = Layout.of({"a": (8, 8)}, 2)
    assert fresh(layout, b"one") != fresh(layout, b"two")


def test_the_order_of_modules_does_not_matter() -> None:
    modules = {"a": (8, 8), "b": (6, 9)}
    assert Layout.of(modules, 2) == Layout.of(dict(reversed(modules.items())), 2)


@pytest.mark.parametrize("rank", [0, -1, 6])
def test_a_rank_that_a_layer_cannot_have_is_refused(rank: int) -> None:
    with pytest.raises(ConfigError, match=rf"smaller side of m \(5 × 8\), got {rank}"):
        Layout.of({"m": (8, 5)}, rank)


def test_a_factor_is_half_of_the_adapter() -> None:
    state = fresh(Layout.of({"a": (8, 8), "b": (6, 9)}, 2), b"seed")
    assert list(factor(state, "A")) == ["a.lora_A", "b.lora_A"]
    assert list(factor(state, "B")) == ["a.lora_B", "b.lora_B"]
