"""A federation in one process, without a network: real training, real aggregation, real contributions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from core import lora, seeds
from core.adapter import AdapterState
from core.aggregation import RULES, WeightedUpdate, weights
from core.canonical import Address
from llm.data import Record
from llm.model import Model
from llm.train import TrainConfig, train
from provenance.contributions import Contributions, Part, Step
from provenance.method import Subject

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


def address(place: int) -> Address:
    """The address of the member at a place; their order is the same."""
    return Address(f"0x{place + 1:040x}")


def federate(model: Model, members: Sequence[Member], plan: Plan, seed: int) -> Iterator[Subject]:
    """Train round by round; yields what is asked about after each."""
    fresh = lora.fresh(lora.Layout.of(model.modules, model.spec.rank), seeds.shared(seed))
    state, steps = RULE.initial(fresh), []
    for number, who in enumerate(plan.rounds):
        share = weights({address(place): members[place].examples for place in who})
        updates = []
        for place in who:
            drawn = seeds.as_int(seeds.local(seed, address(place), number))
            start = RULE.start(state, fresh)
            trained = train(model, members[place].records, start, plan.config(number), drawn).adapter
            updates.append(WeightedUpdate(address(place), share[address(place)], RULE.update(state, trained)))
        before, (state, _) = state, RULE.aggregate(state, updates)
        parts = tuple(Part(u.organisation, u.weight, partial(_same, u.state)) for u in updates)
        steps.append(Step(partial(_same, before), partial(_same, state), parts))
        contributions = Contributions(RULE, fresh, (tuple(steps),), model.spec.alpha / model.spec.rank, model.device)
        yield Subject("benchmark", state.digest, model, RULE.adapter(state, fresh), contributions)


def _same(state: AdapterState) -> AdapterState:
    return state
