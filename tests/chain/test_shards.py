"""Lanes of a genesis: a partition of its organisations, or as many shards of each as of any other."""

import pytest

from chain.audit.records import check_genesis
from core.canonical import Address
from core.errors import IntegrityError
from tests import federation as f

ONE, TWO = (member.address for member in f.members(("medical", "coding")))
Lanes = tuple[tuple[Address, ...], ...]


@pytest.mark.parametrize("lanes", [((ONE, TWO),), ((ONE,), (TWO,)), ((TWO,), (ONE,)), ((ONE,),) * 3 + ((TWO,),) * 3])
def test_every_organisation_has_its_lanes(lanes: Lanes) -> None:
    check_genesis(f.genesis(("medical", "coding"), lanes=lanes))


@pytest.mark.parametrize(
    "lanes",
    [
        (),
        ((ONE,),),
        ((ONE, TWO), (ONE,)),
        ((ONE,), (ONE,), (TWO,)),
        ((ONE,), (TWO,), ()),
        ((ONE,), (TWO,), (ONE,), (TWO,)),
        ((ONE, TWO),) * 2,
        ((ONE, TWO),) * 4,
        ((ONE,),) * 3 + ((TWO,),),
    ],
)
def test_lanes_that_cannot_be_are_refused(lanes: Lanes) -> None:
    with pytest.raises(IntegrityError, match="lanes that do not hold every organisation once"):
        check_genesis(f.genesis(("medical", "coding"), lanes=lanes))
