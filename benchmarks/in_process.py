"""A federation in one process, without a network: real training and real aggregation under frozen-a."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from core import lora, seeds
from core.adapter import AdapterState
from core.aggregation import RULES, WeightedUpdate, weights
from core.canonical import Address
from llm.model import Model
from llm.records import Record
from llm.train import TrainConfig, train

RULE = RULES["frozen-a"]


@dataclass(frozen=True)
class Member:
    """An organisation: what it trains on, and the number of examples that its weight counts."""

    records: tuple[Record, ...]
    examples: int = 1


@dataclass(frozen=True)
class Plan:
    """Who takes part in each round (places among the members), and how everybody trains."""

    rounds: tuple[tuple[int, ...], ...]
    steps: int = 10
    batch_size: int = 2
    max_length: int = 128
    learning_rate: float = 6e-3

    def config(self, number: int) -> TrainConfig:
        """The training of round `number`, from 0."""
        first, total = self.steps * number, self.steps * len(self.rounds)
        return TrainConfig(self.steps, self.batch_size, self.max_length, self.learning_rate, first, total)


@dataclass(frozen=True)
class Round:
    """The state before a round, what each member sent with its weight, and the state after it."""

    before: AdapterState
    updates: tuple[WeightedUpdate, ...]
    after: AdapterState


def address(place: int) -> Address:
    """The address of the member at a place; their order is the same."""
    return Address(f"0x{place + 1:040x}")


def fresh_adapter(model: Model, seed: int) -> AdapterState:
    """The shared A of a federation of this seed, and B = 0."""
    return lora.fresh(lora.Layout.of(model.modules, model.spec.rank), seeds.shared(seed))


def learn(
    model: Model,
    members: Sequence[Member],
    plan: Plan,
    seed: int,
    state: AdapterState | None = None,
    rounds: Collection[int] | None = None,
) -> Iterator[Round]:
    """Train round by round, those of `rounds` only (from 0, all by default), from `state` (the beginning)."""
    fresh = fresh_adapter(model, seed)
    state = RULE.initial(fresh) if state is None else state
    for number in range(len(plan.rounds)) if rounds is None else rounds:
        share = weights({address(place): members[place].examples for place in plan.rounds[number]})
        updates = []
        for place in plan.rounds[number]:
            drawn = seeds.as_int(seeds.local(seed, address(place), number))
            start = RULE.start(state, fresh)
            trained = train(model, members[place].records, start, plan.config(number), drawn).adapter
            updates.append(WeightedUpdate(address(place), share[address(place)], RULE.update(state, trained)))
        before, (state, _) = state, RULE.aggregate(state, updates)
        yield Round(before, tuple(updates), state)
