"""A federation in one process, without a network: real training and real aggregation under frozen-a."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from core import lora, seeds
from core.adapter import AdapterState
from core.aggregation import RULES, WeightedUpdate, weights
from core.canonical import Address
from core.config import RunConfig
from llm.model import Model
from llm.records import Record
from llm.train import TrainConfig, train

RULE = RULES["frozen-a"]


@dataclass(frozen=True)
class Member:
    """An organisation: its training records, and the number of examples that its weight counts."""

    records: tuple[Record, ...]
    examples: int = 1


@dataclass(frozen=True)
class Schedule:
    """The indices of the members that take part in each round, and the settings of everybody's training."""

    rounds: tuple[tuple[int, ...], ...]
    steps: int = 10
    batch_size: int = 2
    max_length: int = 128
    learning_rate: float = 6e-3
    server_rate: float = 1.0

    @classmethod
    def by_default(cls, rounds: tuple[tuple[int, ...], ...], steps: int) -> "Schedule":
        """These rounds with the product's settings."""
        own = RunConfig()
        return cls(rounds, steps, own.batch_size, own.max_length, own.learning_rate, own.server_rate)

    def config(self, number: int) -> TrainConfig:
        """The training of round `number`, from 0."""
        first, total = self.steps * number, self.steps * len(self.rounds)
        return TrainConfig(self.steps, self.batch_size, self.max_length, self.learning_rate, first, total)


@dataclass(frozen=True)
class TrainedRound:
    """The state before a round, the update of each member with its weight, and the state after it."""

    before: AdapterState
    updates: tuple[WeightedUpdate, ...]
    after: AdapterState


def address(index: int) -> Address:
    """The address of the member with this index; both have the same order."""
    return Address(f"0x{index + 1:040x}")


def fresh_adapter(model: Model, seed: int) -> AdapterState:
    """The shared A of a federation of this seed, and B = 0."""
    return lora.fresh(lora.Layout.of(model.modules, model.spec.rank), seeds.shared(seed))


def train_rounds(
    model: Model, members: Sequence[Member], schedule: Schedule, seed: int, state: AdapterState | None = None
) -> Iterator[TrainedRound]:
    """Train round by round, from `state`, by default from B = 0."""
    fresh = fresh_adapter(model, seed)
    state = RULE.initial(fresh) if state is None else state
    for number, taking_part in enumerate(schedule.rounds):
        share = weights({address(index): members[index].examples for index in taking_part}, schedule.server_rate)
        updates = []
        for index in taking_part:
            # Nobody's seed depends on the other members: without one of them the batches of the rest stay the same.
            local_seed = seeds.as_int(seeds.local(seed, address(index), number))
            start = RULE.start(state, fresh)
            trained = train(model, members[index].records, start, schedule.config(number), local_seed).adapter
            updates.append(WeightedUpdate(address(index), share[address(index)], RULE.update(state, trained)))
        before, (state, _) = state, RULE.aggregate(state, updates)
        yield TrainedRound(before, tuple(updates), state)


def train_to_end(
    model: Model, members: Sequence[Member], schedule: Schedule, seed: int, state: AdapterState | None = None
) -> AdapterState:
    """The state after the last round."""
    *_, last = train_rounds(model, members, schedule, seed, state)
    return last.after
