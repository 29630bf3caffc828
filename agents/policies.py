"""Policies that choose whom a lane asks in a round."""

from collections.abc import Callable, Sequence

from core import seeds
from core.canonical import Address
from core.rounds import Genesis

Policy = Callable[[Genesis, Sequence[Address], int], list[Address]]
"""(genesis, a lane's organisations, round) -> those who are asked, in the lane's order."""


def everyone(genesis: Genesis, lane: Sequence[Address], number: int) -> list[Address]:  # noqa: ARG001 - a Policy
    """All of the lane."""
    return list(lane)


def random(genesis: Genesis, lane: Sequence[Address], number: int) -> list[Address]:
    """Those whose ticket H(seed, address, round) is below the fraction; a quorum of the lowest when they are fewer.

    A ticket depends on nobody else, so the draw does not shift when an organisation leaves.
    """
    participation = genesis.participation
    return seeds.drawn(genesis.seed, lane, number, participation.fraction, participation.quorum)


POLICIES: dict[str, Policy] = {"all": everyone, "random": random}
