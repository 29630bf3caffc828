"""Model selection: which round of a lane is served, and when its training ends, by losses in its records.

    best_t    t where loss_t < loss of best_{t−1}, else best_{t−1}     loss_t: of the lane's state after round t
    served    the last round, or with `serve` best the best one
    the end   after round t of the federation, if t − best_t ≥ `patience`

The loss is the mean over the domains of the shared validation set, in nats per answer token, measured once by the
coordinator and signed in the round's record, beside the best round so far. So the newest record alone says what is
served, and whoever has the records before it computes that again. A calibration has its own length, and rounds that are
re-aggregated are there already: neither ends early.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from core.adapter import AdapterState
from core.aggregation import WeightedUpdate
from core.canonical import Address, Digest
from core.errors import IntegrityError
from core.genesis import Genesis
from core.rounds import Best, RoundRecord


class Measures(Protocol):
    """What is measured on the shared validation set, in nats per answer token."""

    def loss(self, state: AdapterState) -> float:
        """The mean loss of a lane's state over the domains."""
        ...

    def loss_bound(self, state: AdapterState) -> float:
        """The highest loss of a lane's state on any domain."""
        ...

    def effects(
        self, before: AdapterState, updates: Sequence[WeightedUpdate], seconds: float
    ) -> Mapping[Address, float]:
        """By how much an update alone raises the loss of a lane's state, on few records: for people.

        Of the first one at least, and of as many as some seconds allow.
        """
        ...

    def harms(self, before: AdapterState, updates: Sequence[WeightedUpdate], bound: float) -> Mapping[Address, float]:
        """The harm of each update alone (core/robust.py), as far as it matters whether it is above a bound."""
        ...


class ServedRound(NamedTuple):
    """A lane's round that is served: its number, and the digests of the state after it, its own and as it is sent."""

    round: int
    aggregate: Digest
    sent: Digest


def best_of(record: RoundRecord, before: Best | None) -> Best | None:
    """The best round that a record must name, by its own loss; None where it records none.

    `before` is that of the round before, None of none.
    """
    loss = record.validation_loss
    if loss is None or (before and before.loss <= loss):
        return before if loss is not None else None
    return Best(record.round, record.aggregate, loss, record.rounded)


def check_best(genesis: Genesis, line: Sequence[RoundRecord]) -> None:
    """Check the best round that each record of a whole line names; raises IntegrityError."""
    before: Best | None = None
    for record in line:
        before = best_of(record, before)
        if record.best != before or (before is not None) != genesis.compares_rounds:
            raise IntegrityError(f"round {record.round}: expected best round {before}, got {record.best}")


def served_round(genesis: Genesis, head: RoundRecord) -> ServedRound:
    """What a lane serves when `head` is its newest round."""
    if genesis.serve == "best" and head.best:
        return ServedRound(head.best.round, head.best.aggregate, head.best.sent)
    return ServedRound(head.round, head.aggregate, head.sent)


def served_line(genesis: Genesis, line: Sequence[RoundRecord]) -> Sequence[RoundRecord]:
    """The rounds of a line that the served state is the sum of."""
    last = served_round(genesis, line[-1]).round if line else 0
    return [record for record in line if record.round <= last]


def stops(genesis: Genesis, number: int, best: Best | None) -> bool:
    """Whether training ends early after round `number` of the federation, given the best round so far."""
    training = number < genesis.training.rounds
    return training and genesis.patience > 0 and best is not None and number - best.round >= genesis.patience


def completes(genesis: Genesis, head: RoundRecord, last: int) -> bool:
    """Whether a lane whose newest round is `head` has no further one; `last` is where its generation ends at most."""
    return head.round >= last or stops(genesis, head.round, head.best)


def perplexity(loss: float) -> float:
    """exp(loss) of nats per token, infinite from where float64 ends."""
    return math.exp(loss) if loss < math.log(sys.float_info.max) else math.inf
