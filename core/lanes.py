"""Lane: its members, its head, and the state that its next round starts from, as the run's records have them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from core.adapter import AdapterState
from core.canonical import Address, Digest
from core.composition import Composition, compose
from core.generations import GenerationRecord, last_round
from core.genesis import Genesis
from core.model_selection import served_round, stops
from core.round_key import RoundKey
from core.rounds import RoundRecord, Salts
from core.signed import Signed
from core.storage.run_folder import RunFolder


@dataclass(frozen=True)
class Lane:
    """A lane at one moment; closing a round makes the next value."""

    index: int
    members: tuple[Address, ...]
    generation: int
    openings: tuple[Signed[GenerationRecord], ...]
    """The records that opened the lane's generations, in order."""
    head: Signed[RoundRecord] | None
    """The record of the lane's last round that admitted something; None before round 1."""
    salts: Salts | None
    """The head's salts."""
    state: AdapterState
    rounds: int
    """The round that the lane's generation ends with at most."""
    previous: Digest
    """The generation's newest record, of an empty round too; before the first, its opening record or the genesis."""
    failed: tuple[RoundRecord, ...]
    """The attempts at the round after the head, all of them below the quorum."""
    stopped: bool
    """Whether its training has ended early."""
    served: Signed[RoundRecord] | None
    """The record of the round that is served; None before round 1."""
    served_state: AdapterState

    @classmethod
    def restore(cls, run: RunFolder, index: int, line: Sequence[Signed[RoundRecord]], initial: AdapterState) -> Self:
        """The lane as the run's records left it; `line` is its lineage."""
        openings = tuple(run.generations(index).values())
        opening, head = openings[-1].value if openings else None, line[-1] if line else None
        chosen = served_round(run.genesis, head.value).round if head else 0
        shown = next((signed for signed in line if signed.value.round == chosen), None)
        records = [signed for signed in run.records(index) if signed.value.generation == len(openings)]
        # Attempts below the quorum are records, too: they count, and the next record follows the last of them.
        following = head.value.round + 1 if head else 1
        begun = opening.digest if opening else run.genesis.digest
        return cls(
            index=index,
            members=opening.members if opening else run.genesis.lanes[index],
            generation=len(openings),
            openings=openings,
            head=head,
            salts=run.salts(head.value) if head else None,
            state=run.artifacts.open(head.value.aggregate) if head else initial,
            rounds=last_round(run.genesis, opening),
            previous=records[-1].value.digest if records else begun,
            failed=tuple(signed.value for signed in records if signed.value.round == following),
            stopped=head is not None and stops(run.genesis, head.value.round, head.value.best),
            served=shown,
            served_state=run.artifacts.open(shown.value.aggregate) if shown else initial,
        )

    @property
    def round(self) -> int:
        """The number of the last round that admitted something; 0 before the first."""
        return self.head.value.round if self.head else 0

    @property
    def attempts(self) -> int:
        """How often the round after the head stayed below the quorum."""
        return len(self.failed)

    @property
    def last(self) -> int:
        """The round that the lane is complete with, as far as is known."""
        return self.round if self.stopped else self.rounds

    @property
    def complete(self) -> bool:
        """Whether every round is closed; a lane without members has none to close."""
        return not self.members or self.round >= self.last

    def lacks(self, number: int) -> bool:
        """Whether a round is still to be closed."""
        return not self.complete and self.round < number

    def next_key(self, genesis: Genesis) -> RoundKey:
        """The key of the round after the head, which is trained and closed next."""
        return RoundKey(genesis.digest, self.index, self.generation, self.round + 1)

    def parent(self, genesis: Genesis) -> Digest:
        """The digest that the next record, and every manifest in it, names as its parent."""
        return self.head.value.digest if self.head else genesis.digest

    def after(self, genesis: Genesis, signed: Signed[RoundRecord], salts: Salts, state: AdapterState) -> Self:
        """The lane after a new record; one that admitted nothing counts as a failed attempt at its round."""
        if not signed.value.admitted:
            return replace(self, previous=signed.value.digest, failed=(*self.failed, signed.value))
        record = signed.value
        changed = replace(self, head=signed, salts=salts, state=state, previous=record.digest, failed=())
        if served_round(genesis, record).round == record.round:
            changed = replace(changed, served=signed, served_state=state)
        return replace(changed, stopped=stops(genesis, record.round, record.best))


def partition(organisations: Sequence[Address], size: int, shards: int = 1) -> tuple[tuple[Address, ...], ...]:
    """Lanes of `size` in order of address (0: one lane of all), each `shards` times; the last may be smaller."""
    step = size or len(organisations)
    lanes = (tuple(organisations[start : start + step]) for start in range(0, len(organisations), step))
    return tuple(lane for lane in lanes for _ in range(shards))


def served(genesis: Genesis, lanes: Sequence[Lane]) -> Composition:
    """The composition that the lanes serve as they stand."""
    return compose(genesis, [(lane.members, lane.served_state) for lane in lanes])
