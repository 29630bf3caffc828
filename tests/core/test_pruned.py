"""The list of what was pruned has one form."""

from typing import Any

import pytest

from core.canonical import Digest
from core.errors import FormatError
from core.pruned import Pruned
from tests import federation as f

ONE, TWO = sorted((f.other("one"), f.other("two")))


def test_a_list_comes_back_as_it_was_written() -> None:
    pruned = Pruned((ONE, TWO))
    assert Pruned.from_dict(pruned.to_dict()) == pruned
    assert Pruned.from_dict({"aggregates": []}) == Pruned()


@pytest.mark.parametrize(
    "data",
    [
        {"aggregates": [TWO, ONE]},
        {"aggregates": [ONE, ONE]},
        {"aggregates": [Digest("0x12")]},
        {"aggregates": [7]},
        {"aggregates": ONE},
        {"aggregates": [], "more": 1},
        {},
        [],
    ],
)
def test_another_form_is_refused(data: Any) -> None:
    with pytest.raises(FormatError):
        Pruned.from_dict(data)
