from types import SimpleNamespace
from typing import Any

import torch

from llm.per_row_adapters import per_row_adapters
from tests.llm.small_decoder import linear

INPUTS = torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]])


def model() -> Any:
    return SimpleNamespace(layers={"layer": linear([[1.0, 0.0], [0.0, 1.0]])})


def test_each_row_gets_its_own_term() -> None:
    """Row 0 adds 10 x_0 to the first feature, row 1 adds 100 x_1 to the second; the scale is 1/2."""
    left = torch.tensor([[[10.0], [0.0]], [[0.0], [100.0]]])
    right = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    small = model()
    with per_row_adapters(small, {"layer": [(left, right)]}, 0.5):
        found = small.layers["layer"](INPUTS)
    assert found.tolist() == [[[1 + 5 * 1, 2]], [[3, 4 + 50 * 4]]]
    assert small.layers["layer"](INPUTS).tolist() == INPUTS.tolist()


def test_rows_may_share_a_factor_and_terms_add_up() -> None:
    shared = torch.tensor([[[1.0, 1.0]]])
    lefts = torch.tensor([[[1.0], [0.0]], [[0.0], [1.0]]])
    small = model()
    with per_row_adapters(small, {"layer": [(lefts, shared), (lefts, shared)]}, 1.0):
        found = small.layers["layer"](INPUTS)
    assert found.tolist() == [[[1 + 2 * 3, 2]], [[3, 4 + 2 * 7]]]


def test_one_row_may_be_read_by_all() -> None:
    lefts = torch.tensor([[[1.0], [0.0]], [[0.0], [1.0]]])
    small = model()
    with per_row_adapters(small, {"layer": [(lefts, torch.tensor([[[1.0, 0.0]]]))]}, 1.0):
        assert small.layers["layer"](INPUTS[:1]).tolist() == [[[2, 2]], [[1, 3]]]
