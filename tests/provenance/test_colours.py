"""Colours: one for each organisation, whatever the response, and none twice."""

import re

import pytest

from core.canonical import Address
from provenance.colours import colours, mixed


def addresses(count: int) -> dict[Address, str]:
    """Addresses with names whose order is the other way round."""
    return {Address(f"0x{number:040x}"): f"organisation {count - number:03}" for number in range(count)}


def test_colours_are_given_out_in_order_of_name() -> None:
    names = addresses(3)
    first, second, third = names
    assert colours(names, names) == {third: "#0072b2", second: "#e69f00", first: "#009e73"}


@pytest.mark.parametrize("count", [0, 1, 7, 8, 40])
def test_every_organisation_has_a_colour_of_its_own(count: int) -> None:
    names = addresses(count)
    given = colours(names, names)
    assert given.keys() == names.keys()
    assert len(set(given.values())) == count
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in given.values())


def test_nobody_s_colour_changes_when_another_comes_behind() -> None:
    names = addresses(20)
    fewer = dict(sorted(names.items(), key=lambda item: item[1])[:12])
    given = colours(names, names)
    assert {address: given[address] for address in fewer} == colours(fewer, fewer)


@pytest.mark.parametrize(
    ("share", "ground", "expected"),
    [
        (1.0, "#ffffff", "#0072b2"),
        (0.0, "#ffffff", "#ffffff"),
        (0.0, "#102030", "#102030"),
        (0.5, "#ffffff", "#80b8d8"),
        (0.25, "#000000", "#001c2c"),
    ],
)
def test_a_share_of_a_colour_lies_between_the_ground_and_it(share: float, ground: str, expected: str) -> None:
    assert mixed("#0072b2", share, ground) == expected
