"""A lane as the coordinator sees it: its members, its head, and the state its next round starts from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from core.adapter import AdapterState
from core.aggregation import Rule
from core.canonical import Address, Digest
from core.rounds import Genesis, Salts, SignedRecord
from core.store import RunFolder


@dataclass(frozen=True)
class Lane:
    """Immutable: closing a round makes the next one."""

    index: int
    members: tuple[Address, ...]
    generation: int
    head: SignedRecord | None
    salts: Salts | None
    """Of the head."""
    state: AdapterState
    previous: Digest
    """The lane's newest record, whatever it admitted; the genesis before there is one."""
    attempts: int
    """How often the round after the head was tried without a quorum."""

    @classmethod
    def restore(cls, run: RunFolder, index: int, initial: AdapterState) -> Self:
        """The lane as the run's records left it."""
        records = [signed for signed in run.records() if signed.record.lane == index]
        history = [signed for signed in records if signed.record.admitted]
        head = history[-1] if history else None
        state = run.artifacts.open(head.record.aggregate) if head else initial
        generation = head.record.generation if head else 0
        following = head.record.round + 1 if head else 1
        attempts = sum(1 for s in records if s.record.round == following and s.record.generation == generation)
        salts = run.salts(head.record) if head else None
        previous = records[-1].record.digest if records else run.genesis.digest
        return cls(index, run.genesis.lanes[index], generation, head, salts, state, previous, attempts)

    @property
    def round(self) -> int:
        """The number of the last round that admitted something; 0 before the first."""
        return self.head.record.round if self.head else 0

    def parent(self, genesis: Genesis) -> Digest:
        """What the next record and every manifest in it name as their parent."""
        return self.head.record.digest if self.head else genesis.digest

    def after(self, signed: SignedRecord, salts: Salts, state: AdapterState) -> Self:
        """The lane behind a new record."""
        tried = not signed.record.admitted
        return type(self)(
            index=self.index,
            members=self.members,
            generation=self.generation,
            head=self.head if tried else signed,
            salts=self.salts if tried else salts,
            state=self.state if tried else state,
            previous=signed.record.digest,
            attempts=self.attempts + 1 if tried else 0,
        )


def partition(organisations: Sequence[Address], size: int) -> tuple[tuple[Address, ...], ...]:
    """Lanes of `size` in order of address (0: one lane of all); the last may be smaller."""
    step = size or len(organisations)
    return tuple(tuple(organisations[start : start + step]) for start in range(0, len(organisations), step))


def served(genesis: Genesis, rule: Rule, lanes: Sequence[Lane]) -> AdapterState:
    """The state that is served: the lane's own, or the sum of isolated lanes weighted by their examples."""
    if len(lanes) == 1:
        return lanes[0].state
    examples = {o.address: o.examples for o in genesis.organisations}
    total = sum(examples.values())
    shares = [sum(examples[address] for address in lane.members) / total for lane in lanes]
    return rule.compose([(share, lane.state) for share, lane in zip(shares, lanes, strict=True)])
