"""The rounds behind a served adapter; states and updates stay in the store until they are needed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.adapter import AdapterState
from core.aggregation import RULES, Rule, WeightedUpdate, by_address
from core.canonical import Address
from core.errors import UsageError
from core.storage.run_folder import RunFolder

Float64 = NDArray[np.float64]


class StoredRound(NamedTuple):
    """One round of a lane: how to read the states before and after it, and its admitted updates.

    Weights are those in the served adapter: in the round, times the lane's share.
    """

    before: Callable[[], AdapterState]
    after: Callable[[], AdapterState]
    updates: tuple[WeightedUpdate, ...]


@dataclass(frozen=True, eq=False)
class History:
    """The rounds of each lane behind a served adapter, in order. `fresh` is the adapter before any training.

    Raises UsageError when no round admitted an update.
    """

    rule: Rule
    fresh: AdapterState
    lanes: tuple[tuple[StoredRound, ...], ...]

    def __post_init__(self) -> None:
        """Refuse a run without contributions."""
        if not self.organisations:
            raise UsageError("no round of this run has admitted an update: there are no contributions to attribute to")

    @cached_property
    def organisations(self) -> tuple[Address, ...]:
        """The organisations with an admitted update, in order of address."""
        return tuple(sorted(self._updates_by_organisation, key=by_address))

    @cached_property
    def candidates(self) -> tuple[Address, ...]:
        """The organisations that the last round of a lane admitted, in order of address."""
        last = {update.organisation for lane in self.lanes if lane for update in lane[-1].updates}
        return tuple(sorted(last, key=by_address))

    @cached_property
    def modules(self) -> tuple[str, ...]:
        """The adapted modules, in order of name."""
        return tuple(name.removesuffix(".lora_A") for name in self.fresh if name.endswith(".lora_A"))

    def updates(self, organisations: Sequence[Address]) -> Iterator[tuple[int, StoredRound, WeightedUpdate]]:
        """The admitted updates of `organisations`, each with its organisation's index among them and its round."""
        indices = {organisation: i for i, organisation in enumerate(organisations)}
        for lane in self.lanes:
            for done in lane:
                for update in done.updates:
                    if update.organisation in indices:
                        yield indices[update.organisation], done, update

    def total(self, organisation: Address, names: Sequence[str]) -> dict[str, Float64]:
        """D_k of one organisation: its weighted updates of these arrays, summed over all rounds."""
        sums: dict[str, Float64] = {}
        for update in self._updates_by_organisation[organisation]:
            state = update.state
            for name in names:
                sums[name] = update.weight * state[name].astype(np.float64) + sums.get(name, 0.0)
        return sums

    @cached_property
    def _updates_by_organisation(self) -> Mapping[Address, Sequence[WeightedUpdate]]:
        """Kept, since `total` would otherwise walk all rounds for each of many organisations."""
        updates: dict[Address, list[WeightedUpdate]] = {}
        for lane in self.lanes:
            for done in lane:
                for update in done.updates:
                    updates.setdefault(update.organisation, []).append(update)
        return updates


def stored_rounds(run: RunFolder, lane: int, share: float, fresh: AdapterState) -> tuple[StoredRound, ...]:
    """The rounds of a lane that its served state is the sum of; the lane counts with its share in what is served."""
    before: Callable[[], AdapterState] = partial(RULES[run.genesis.rule].initial, fresh)
    rounds = []
    if origin := run.genesis.origin:
        # What the run began with is one update more, of the former run.
        begun = partial(run.artifacts.open, origin.state)
        rounds.append(StoredRound(before, begun, (WeightedUpdate(origin.address, share, begun),)))
        before = begun
    for record in (signed.value for signed in run.served_line(lane)):
        after = partial(run.artifacts.open, record.aggregate)
        updates = tuple(record.counted(run.genesis, run.artifacts.open, share))
        rounds.append(StoredRound(before, after, updates))
        before = after
    return tuple(rounds)
