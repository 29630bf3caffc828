"""Lanes: who learns together, and what is served of them."""

import numpy as np
import pytest

from core.adapter import AdapterState
from core.canonical import Address
from core.composition import Composition, Part
from core.errors import ConfigError
from core.lanes import Lane, partition, served
from tests import federation as f

ADDRESSES = [Address(f"0x{i:040x}") for i in range(5)]


@pytest.mark.parametrize(
    ("size", "expected"),
    [(0, [5]), (1, [1, 1, 1, 1, 1]), (2, [2, 2, 1]), (5, [5]), (9, [5])],
)
def test_lanes_divide_the_organisations_in_order(size: int, expected: list[int]) -> None:
    lanes = partition(ADDRESSES, size)
    assert [len(lane) for lane in lanes] == expected
    assert [address for lane in lanes for address in lane] == ADDRESSES


def test_slices_are_lanes_of_one_next_to_each_other() -> None:
    assert partition(ADDRESSES[:2], 1, 3) == ((ADDRESSES[0],),) * 3 + ((ADDRESSES[1],),) * 3


def test_slices_share_the_weight_of_their_organisation() -> None:
    medical, financial = f.address("medical"), f.address("financial")
    genesis = f.genesis(("medical", "financial"), lanes=((medical,),) * 2 + ((financial,),) * 2)
    lanes = [lane(i, members, 2.0**i) for i, members in enumerate(genesis.lanes)]
    (got,) = served(genesis, lanes).states
    expected = 0.25 * (1 + 2) / 2 + 0.75 * (4 + 8) / 2
    np.testing.assert_array_equal(got["m.lora_B"], np.full((2, 1), expected, np.float32))


def lane(index: int, members: tuple[Address, ...], value: float) -> Lane:
    state = AdapterState({"m.lora_B": np.full((2, 1), value, np.float32)})
    return Lane(index, members, 0, (), None, None, state, 1, f.other("record"), 0, False, None, state)


def test_one_lane_is_served_as_it_is() -> None:
    genesis = f.genesis()
    alone = lane(0, genesis.lanes[0], 3.0)
    assert served(genesis, [alone]).states[0] is alone.state


def test_several_lanes_are_served_as_the_sum_weighted_by_their_examples() -> None:
    medical, financial = f.address("medical"), f.address("financial")
    genesis = f.genesis(("medical", "financial"), lanes=((medical,), (financial,)))
    lanes = [lane(0, (medical,), 4.0), lane(1, (financial,), 8.0)]
    got = served(genesis, lanes)
    summed = tuple((share, lane.state.digest) for share, lane in zip((0.25, 0.75), lanes, strict=True))
    assert got == Composition("sum", (Part(1.0, got.states[0]),), summed)
    np.testing.assert_array_equal(got.states[0]["m.lora_B"], np.full((2, 1), 0.25 * 4 + 0.75 * 8, np.float32))


def test_lanes_of_a_rule_that_cannot_be_summed_are_refused() -> None:
    medical, financial = f.address("medical"), f.address("financial")
    genesis = f.genesis(("medical", "financial"), lanes=((medical,), (financial,)), rule="stack")
    with pytest.raises(ConfigError, match="needs aggregation frozen-a"):
        served(genesis, [lane(0, (medical,), 1.0), lane(1, (financial,), 1.0)])
