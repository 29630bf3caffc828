"""Organisations without a model: they sign, lie, fail or keep silent as a test wants, on the real messages."""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from agents.rewards import Rewards
from console.backends.inline import InlineGrid
from core.adapter import AdapterState
from core.aggregation import RULES, WeightedUpdate
from core.canonical import Address, digest
from core.genesis import Genesis
from core.ledger import MemoryLedger
from core.messages import training
from core.messages.queries import BIND, OFFER, Bind, Bound, OfferQuery
from core.messages.training import EVALUATE, TRAIN, Task
from core.rounds import RoundRecord
from core.signed import Signed
from core.storage.events import EventLog
from core.storage.run_folder import RunFolder
from core.update import Bid, Registration, UpdateManifest
from core.wire import Packed, Travelling
from server_app.binding import Bindings
from server_app.exchange import Clock
from server_app.rounds import Rounds
from server_app.strategy import Foedus
from server_app.tasks import Waiting
from tests import federation as f

Behaviour = Callable[[Task], RecordDict]
"""What an organisation replies to a training task."""


def honest_update(task: Task) -> AdapterState:
    """A function of the organisation and the round alone."""
    shapes = RULES[task.genesis.rule].shapes(task.state, f.fresh())
    return f.delta(shapes, task.organisation, task.round)


def honest_manifest(task: Task, sent: Travelling, **changes: Any) -> UpdateManifest:
    member = task.genesis.organisation(task.organisation)
    assert member is not None
    values: dict[str, Any] = {
        "genesis": task.genesis.digest,
        "organisation": task.organisation,
        "lane": task.lane,
        "generation": task.generation,
        "round": task.round,
        "parent": task.parent.value.digest if task.parent else task.genesis.digest,
        "update": sent.digest,
        "examples": member.examples,
        "tokens": 10,
        "bid": Bid(1, 1),
        "wire": task.genesis.wire,
        "nonce": digest("nonce", f"{task.organisation} {task.round}".encode()),
        "metrics": {"loss": 1.0},
    }
    return UpdateManifest(**values | changes)


def answer(task: Task, sent: AdapterState | None = None, signer: str = "", **changes: Any) -> RecordDict:
    """A signed reply, honest but for what is given."""
    sent = sent or honest_update(task)
    packed = Packed.of(sent, task.genesis.wire)
    manifest = honest_manifest(task, packed, **changes)
    key = f.key(signer or name_of(task.organisation))
    return training.reply(manifest.sign(key, task.genesis.chain), packed)


def name_of(address: Address) -> str:
    return next(name for name in f.EXAMPLES if f.address(name) == address)


def with_array(task: Task, make: Callable[[np.ndarray[Any, Any]], Any]) -> AdapterState:
    """The honest update with its first array replaced."""
    update = honest_update(task)
    first = next(iter(update))
    return AdapterState({**update.arrays, first: make(update[first])})


def large(times: float) -> Behaviour:
    """An honest reply with an update so many times as large, and a nonce for its generation and round."""

    def behave(task: Task) -> RecordDict:
        arrays = honest_update(task).arrays.items()
        sent = AdapterState({name: (times * array).astype(np.float32) for name, array in arrays})
        return answer(task, sent, nonce=f.other(f"{task.organisation} {task.generation} {task.round}"))

    return behave


def sequence(*behaviours: Behaviour) -> Behaviour:
    """One behaviour after the other, the last for ever."""
    left = list(behaviours)

    def behave(task: Task) -> RecordDict:
        return (left.pop(0) if len(left) > 1 else left[0])(task)

    return behave


def fail(task: Task) -> RecordDict:
    raise RuntimeError("first line\n\x1b[31mlast line" + "x" * 1000)


@dataclass
class Time:
    """A clock that goes on when somebody sleeps."""

    seconds: float = 0.0

    def pass_by(self, seconds: float) -> None:
        self.seconds += seconds

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.seconds, self.pass_by)


@dataclass
class Clients:
    """The nodes of a grid: node i hosts every organisation j with j mod nodes = i."""

    names: Sequence[str]
    nodes: int
    behave: Mapping[str, Behaviour] = field(default_factory=dict)
    losses: Mapping[str, Callable[[], RecordDict]] = field(default_factory=dict)
    evaluated: list[Task] = field(default_factory=list)
    trained: list[Task] = field(default_factory=list)
    offers: Mapping[str, Callable[[OfferQuery], RecordDict]] = field(default_factory=dict)
    queried: list[OfferQuery] = field(default_factory=list)
    register: Callable[[Signed[Registration]], Signed[Registration]] = lambda registration: registration

    def __call__(self, message: Message, context: Context) -> Message:
        handlers = {
            BIND: self._bind,
            OFFER: self._offer,
            TRAIN: self._train,
            EVALUATE: self._evaluate,
        }
        return Message(handlers[message.metadata.message_type](message, context), reply_to=message)

    def _bind(self, message: Message, context: Context) -> RecordDict:
        query = Bind.from_content(message.content)
        hosted = [member for member in f.members(self.names) if member.name in self._hosted(context)]
        signed = [f.registration(m, query.asked.challenge, f.key(m.name), query.chain) for m in hosted]
        return Bound(tuple(map(self.register, signed)), len(self.names)).to_content()

    def _offer(self, message: Message, context: Context) -> RecordDict:
        query = OfferQuery.from_content(message.content)
        self.queried.append(query)
        return self.offers[name_of(query.organisation)](query)

    def _train(self, message: Message, context: Context) -> RecordDict:
        task = Task.from_content(message.content)
        self.trained.append(task)
        assert name_of(task.organisation) in self._hosted(context)
        reply = self.behave.get(name_of(task.organisation), answer)(task)
        if task.measure:
            with suppress(RuntimeError):  # it trains all the same
                reply = RecordDict({**reply, **self._losses(task)})
        return reply

    def _evaluate(self, message: Message, context: Context) -> RecordDict:
        task = Task.from_content(message.content)
        return self._losses(task)

    def _losses(self, task: Task) -> RecordDict:
        self.evaluated.append(task)
        lying = self.losses.get(name_of(task.organisation))
        return lying() if lying else training.losses({"base": 2.0, "global": 1.0})

    def _hosted(self, context: Context) -> Sequence[str]:
        return list(self.names)[context.node_id - 1 :: self.nodes]


class TestGrid(InlineGrid):
    """An InlineGrid whose replies arrive in a shuffled order, and that can lose nodes, messages and replies."""

    __test__ = False

    def __init__(self, clients: Clients, order: int | None = None) -> None:
        super().__init__(cast(ClientApp, clients), clients.nodes, {})
        self.order = random.Random(order) if order is not None else None  # noqa: S311 - a test's order
        self.gone: set[int] = set()
        self.silent: set[Address] = set()
        self.unsendable: set[Address] = set()
        self._queue: list[str] = []

    def get_node_ids(self) -> list[int]:
        return [node for node in super().get_node_ids() if node not in self.gone]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        (message,) = messages
        to = Task.from_content(message.content).organisation if "task" in message.content else None
        if to in self.unsendable:
            return cast(list[str], [None])
        (name,) = super().push_messages([message])
        if to in self.silent and message.metadata.message_type == TRAIN:
            del self.replies[name]
        elif self.order:
            self._queue.insert(self.order.randint(0, len(self._queue)), name)
        return [name]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        wanted = [name for name in message_ids if not self.order or name == self._queue[0]]
        replies = super().pull_messages(wanted)
        if self.order and replies:
            self._queue.pop(0)
        return replies


class Ledger(MemoryLedger):
    """The in-memory ledger on the chain and contract of the test federation."""

    domain = f.CHAIN


@dataclass
class Measured:
    """What the coordinator measures: 4 nats of a state, or the next of `losses`; of some organisations an effect."""

    of: dict[Address, float] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)

    def loss(self, _state: AdapterState) -> float:
        return self.losses.pop(0) if self.losses else 4.0

    def loss_bound(self, _state: AdapterState) -> float:
        return 4.0

    def effects(
        self, _before: AdapterState, updates: Sequence[WeightedUpdate], _seconds: float
    ) -> dict[Address, float]:
        return {update.organisation: self.of.get(update.organisation, -0.1) for update in updates}

    def harms(self, before: AdapterState, updates: Sequence[WeightedUpdate], _bound: float) -> dict[Address, float]:
        return self.effects(before, updates, 0.0)


@dataclass
class Federation:
    """A run, its organisations, and strategies that may die and be restored over it."""

    folder: Path
    genesis: Genesis
    clients: Clients
    ledger: Ledger = field(default_factory=Ledger)
    measures: Measured = field(default_factory=Measured)

    @classmethod
    def create(
        cls, folder: Path, names: Sequence[str] = tuple(f.EXAMPLES), nodes: int = 2, **changes: Any
    ) -> "Federation":
        """Values of the genesis, its training and its participation are changed by their names."""
        plain = f.genesis(names)
        nested = {
            part: replace(
                getattr(plain, part), **{k: changes.pop(k) for k in list(changes) if hasattr(getattr(plain, part), k)}
            )
            for part in ("training", "participation")
        }
        federation = cls(folder, f.genesis(names, **nested, **changes), Clients(list(names), nodes))
        federation.run.begin(federation.genesis, f.readers(federation.genesis))
        federation.ledger.open_run(federation.genesis.digest, [o.address for o in federation.genesis.organisations])
        return federation

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.folder / "runs" / "one")

    @property
    def events(self) -> EventLog:
        return EventLog(self.folder / "events.jsonl")

    def commit(self, record: RoundRecord) -> None:
        """Put a round on the ledger at once."""
        self.ledger.commit(self.run.commitment(record))

    def rounds(
        self,
        commit: Callable[[RoundRecord], object] | None = None,
        rewards: Rewards | None = None,
        kind: type[Rounds] = Rounds,
    ) -> Rounds:
        """The lanes of the run as it lies on disk, measured by `measures`."""
        return kind(self.run, f.COORDINATOR, f.fresh(), self.events, commit or self.commit, rewards, self.measures)

    def strategy(self, timeout: float = 0.3, **changes: Any) -> Foedus:
        """A strategy over the run as it lies on disk; `changes` are of `rounds`."""
        strategy = Foedus(
            self.rounds(**changes),
            Bindings(self.genesis.chain, f.COORDINATOR.address, f.RUN),
            lambda served: {"all": 0.5},
            Waiting(timeout, evaluate_timeout=timeout),
        )
        strategy.retry_pause = 0.0
        return strategy

    def start(self, grid: TestGrid | None = None, **changes: Any) -> Foedus:
        """Run a strategy to its end, once the ledger has the rounds of earlier lives."""
        for signed in self.run.records():
            if signed.value.admitted:
                self.commit(signed.value)
        strategy = self.strategy(**changes)
        strategy.start(grid or TestGrid(self.clients))
        return strategy

    def events_named(self, name: str) -> list[dict[str, Any]]:
        return [event for event in EventLog.read(self.events.path)[0] if event["event"] == name]

    def rejections(self) -> list[tuple[int, int, str, str]]:
        """(round, attempt, organisation, reason) of everything that was rejected."""
        return [
            (s.value.round, s.value.attempt, name_of(r.organisation), r.reason)
            for s in self.run.records()
            for r in s.value.rejected
        ]
