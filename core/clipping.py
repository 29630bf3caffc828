"""Clipping: how large an update may be to count whole, by the records of its lane.

    scale  √(s r)                   s, r: steps and rank of its bid; at most twice the members' lower median scale
    limit  c · m · scale            m: the lower median of every member's newest ‖u‖ / scale, this round's included
    f      min(1, limit / ‖u‖)

Trained by AdamW, each number moves about as the root of the steps, so that organisations of few and of many records, of
low and of high bids, are measured alike; up to a point, since steps are what an organisation says of itself. Each
member that has taken part has one vote: a round of two has two norms, and the median of two is their mean, which
follows the larger. Of an even number the lower middle is taken, so that of two it is the smaller. Votes are of one
schedule of the learning rate: at its end updates are near zero, and a calibration starts high.

Norms stand in the records, and an auditor compares them with the updates: the factors are then the same bits on any
machine, and follow after an erasure from the records that are left.
"""

import math
from collections.abc import Iterable, Mapping
from statistics import median_low
from types import MappingProxyType
from typing import NamedTuple, Self

from core.canonical import Address
from core.genesis import Genesis
from core.rounds import Admitted, RoundRecord

WIDEST = 2.0
"""A scale counts up to so many times the members' median: four times the steps, where all train at one rank."""


class Vote(NamedTuple):
    """A member's newest update: its L2 norm, and the scale √(s r) that its bid gives it."""

    norm: float
    scale: float

    @classmethod
    def of(cls, admitted: Admitted) -> Self:
        """That of an admitted update."""
        bid = admitted.signed.value.bid
        return cls(admitted.norm, math.sqrt(max(1, bid.steps) * max(1, bid.rank)))


def clipping(
    genesis: Genesis, line: Iterable[RoundRecord], number: int, admitted: Iterable[Admitted]
) -> dict[Address, float]:
    """The factor of each of a round's updates by its norm; 1 under a rule that does not clip.

    `line` holds the rounds of its line before round `number`, in order.
    """
    now = {a.organisation: Vote.of(a) for a in admitted}
    if not genesis.robust.clips:
        return dict.fromkeys(now, 1.0)
    schedule = genesis.training.schedule(number)
    earlier: dict[Address, Vote] = {}
    for record in line:
        if genesis.training.schedule(record.round) == schedule:
            earlier |= {a.organisation: Vote.of(a) for a in record.admitted}
    return clip_factors(genesis.robust.multiple, now, earlier)


def clip_factors(
    multiple: float, now: Mapping[Address, Vote], earlier: Mapping[Address, Vote] = MappingProxyType({})
) -> dict[Address, float]:
    """min(1, limit / ‖u‖) of a round's updates; `earlier` are the newest before it of those that took part."""
    # Who has nothing to learn, as all its records were erased, sends zeros, and does not hold back the others.
    votes = [vote for vote in {**earlier, **now}.values() if vote.norm]
    widest = WIDEST * median_low([vote.scale for vote in votes] or [1.0])
    most = multiple * median_low([vote.norm / min(vote.scale, widest) for vote in votes] or [0.0])
    limits = {a: most * min(vote.scale, widest) for a, vote in now.items()}
    return {a: 1.0 if vote.norm <= limits[a] else limits[a] / vote.norm for a, vote in now.items()}
