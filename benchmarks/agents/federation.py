"""Real federated rounds in one process, without messages: the market is fitted to them and checked against them.

Eight organisations, two for each domain of a folder of real data: each has one half of the domain's training records.
Training, aggregation, validation and credit are the product's own (`llm`, `core.aggregation`, `agents.credit`).
Free-riders and saboteurs send something else than they trained.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from agents.credit import POINTS, CreditedRound, measure
from benchmarks.in_process import RULE, address, fresh_adapter
from core import seeds
from core.adapter import AdapterState
from core.aggregation import WeightedUpdate, weights
from core.canonical import Address
from core.credit import RoundCredit
from core.update import Bid
from llm.data import read_folder
from llm.evaluate import evaluate
from llm.files import read_records
from llm.loss_and_gradient import loss_and_gradient
from llm.model import Model, ModelSpec, Quantisation, load
from llm.records import Record
from llm.train import TrainConfig, train

DOMAINS = ("coding", "financial", "math", "medical")


@dataclass(frozen=True)
class RoundSettings:
    """Settings of the rounds and of the base; the defaults are for the 260 k story model."""

    rounds: int = 10
    steps: int = 10
    rank: int = 8
    alpha: float = 16.0
    batch_size: int = 4
    max_length: int = 128
    learning_rate: float = 6e-3
    server_rate: float = 1.0
    quantisation: Quantisation = "none"
    blocks: str = ""
    """The blocks that carry the adapter, as in `llm.model.ModelSpec`."""
    validation: int = 25
    """Validation records a domain."""
    points: int = POINTS
    """Gradients a domain and round for the credit."""


@dataclass(frozen=True)
class DomainMember:
    """An organisation: its domain and its records."""

    address: Address
    domain: str
    records: tuple[Record, ...]


@dataclass
class RealFederation:
    """A federation of eight: its members, validation records by domain, and the state after each round so far."""

    model: Model
    members: tuple[DomainMember, ...]
    domains: Mapping[str, tuple[Record, ...]]
    settings: RoundSettings
    seed: int
    states: list[AdapterState] = field(default_factory=list)
    losses: list[dict[str, float]] = field(default_factory=list)
    sent: dict[Address, AdapterState] = field(default_factory=dict)
    trained: dict[Address, float] = field(default_factory=dict)
    """Mean training loss of each member that trained in the last round."""

    def __post_init__(self) -> None:
        """Begin with an untrained adapter."""
        self.fresh = fresh_adapter(self.model, self.seed)
        self.states.append(RULE.initial(self.fresh))
        self.losses.append(self.validated(self.states[0]))

    def round(self, bids: Mapping[Address, Bid], riders: Mapping[Address, str] | None = None) -> RoundCredit:
        """Train, aggregate, validate and credit a round of the members with a bid."""
        updates = self.advance(bids, riders or {})
        changes = {name: (loss, self.losses[-1][name]) for name, loss in self.losses[-2].items()}
        earlier = self.states[-3] if len(self.states) > 2 else None
        done = CreditedRound(self.states[-2], updates, self.states[-1], earlier)
        return measure(done, self._loss_and_gradient, changes, self.settings.points)

    def advance(self, bids: Mapping[Address, Bid], riders: Mapping[Address, str]) -> list[WeightedUpdate]:
        """Train, aggregate and validate a round of the members with a bid; returns the aggregated updates."""
        before = self.states[-1]
        sent: dict[Address, AdapterState] = {}
        self.trained = {}
        # Free-riders come last: a copy needs an honest update of this round.
        for member in sorted(self.members, key=lambda m: m.address in riders):
            if member.address in bids:
                kind = riders.get(member.address)
                honest = self._trained(member, bids[member.address]) if kind in (None, "poisoned", "noise") else None
                sent[member.address] = self._unearned(kind, honest, sent) if kind else honest or before
        p = weights({m.address: len(m.records) for m in self.members if m.address in sent}, self.settings.server_rate)
        updates = [WeightedUpdate(a, p[a], sent[a]) for a in p]
        self.states.append(RULE.aggregate(before, updates).state if updates else before)
        self.losses.append(self.validated(self.states[-1]))
        self.sent = sent
        return updates

    def validated(self, state: AdapterState) -> dict[str, float]:
        """The loss on every domain."""
        adapter = RULE.adapter(state, self.fresh)
        length = self.settings.max_length
        return {n: evaluate(self.model, adapter, records, length).loss for n, records in self.domains.items()}

    def _loss_and_gradient(self, state: AdapterState, name: str) -> tuple[float, AdapterState]:
        adapter = RULE.adapter(state, self.fresh)
        return loss_and_gradient(self.model, adapter, list(state), self.domains[name], self.settings.max_length)

    def _trained(self, member: DomainMember, bid: Bid) -> AdapterState:
        number, settings = len(self.states), self.settings
        config = TrainConfig(
            steps=bid.steps,
            batch_size=settings.batch_size,
            max_length=settings.max_length,
            learning_rate=settings.learning_rate,
            first_step=(number - 1) * settings.steps,
            total_steps=settings.rounds * settings.steps,
            columns=bid.rank,
        )
        seed = seeds.as_int(seeds.local(self.seed, member.address, number))
        start = RULE.start(self.states[-1], self.fresh)
        done = train(self.model, member.records, start, config, seed)
        self.trained[member.address] = done.loss
        return RULE.update(self.states[-1], done.adapter)

    def _unearned(self, kind: str, honest: AdapterState | None, sent: Mapping[Address, AdapterState]) -> AdapterState:
        """The update of a free-rider or saboteur; noise has the size of an honest update."""
        state = self.states[-1]
        if kind == "zero":
            return _scaled(state, 0.0)
        if kind == "copy":  # of the first honest update of this very round
            return next(iter(sent.values()), _scaled(state, 0.0))
        if kind == "old copy":  # of the first update of the round before
            return next(iter(self.sent.values()), _scaled(state, 0.0))
        if kind == "last":
            earlier = self.states[-2] if len(self.states) > 1 else state
            return AdapterState({name: state[name] - earlier[name] for name in state})
        if kind == "poisoned":
            return _scaled(honest or state, -2.0)
        rng = np.random.default_rng([self.seed, len(self.states)])
        return AdapterState(
            {n: (np.std(a) * rng.normal(size=a.shape)).astype(np.float32) for n, a in (honest or state).arrays.items()}
        )


def create_federation(folder: Path, base: str, settings: RoundSettings, seed: int) -> RealFederation:
    """A federation of eight on the four domains of `folder`, with a base by its folder or name."""
    spec = ModelSpec(base, settings.quantisation, settings.rank, settings.alpha, blocks=settings.blocks, device="cpu")
    model = load(spec)
    data: dict[str, tuple[Record, ...]] = {o.name: o.train for o in read_folder(folder).organisations}
    members = tuple(
        DomainMember(address(2 * index + half), domain, tuple(data[domain][half::2]))
        for index, domain in enumerate(DOMAINS)
        for half in range(2)
    )
    domains: dict[str, list[Record]] = {}
    for record in read_records(folder / "validation.jsonl"):
        domains.setdefault(record.domain or "all", []).append(record)
    validation = {name: tuple(domains[name][: settings.validation]) for name in sorted(domains)}
    return RealFederation(model, members, validation, settings, seed)


def _scaled(state: AdapterState, factor: float) -> AdapterState:
    return AdapterState({name: (factor * array).astype(np.float32) for name, array in state.arrays.items()})
