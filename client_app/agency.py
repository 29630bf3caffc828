"""Agency: the agents of the organisations on a node, with their prices, budgets and saved tables.

A simulation takes prices and budget from the run's settings; a deployed node says its own in its node-config:
``step-price, traffic-price, budget, q-table``. The tables lie in the organisation's own state folder.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from flwr.app import UserConfig

from agents.agent import Agent, Prices, Terms
from agents.notebook import Notebook
from agents.table import Learning, QTable, read_table
from core import seeds
from core.canonical import Address
from core.config import RunConfig
from core.genesis import Genesis
from core.messages.codec import traffic
from core.messages.training import Task
from core.round_key import RoundKey
from core.storage.state_folder import State
from core.update import ABSTAIN, Bid


@dataclass(frozen=True)
class Agency:
    """Prices and budget of a node's organisations, and the folder of their agents' tables."""

    state: State
    pool: float
    prices: Prices
    budget: float
    table: str

    @classmethod
    def of(cls, config: RunConfig, state: State, own: UserConfig) -> "Agency":
        """From a run's settings and a node's own; raises ConfigError for a price or a budget that is none."""
        settings = RunConfig.from_flat(config.to_flat() | {name: own[name] for name in _OWN if name in own})
        prices = Prices(settings.step_price, settings.traffic_price)
        return cls(state, settings.pool, prices, settings.budget, settings.q_table)

    @classmethod
    def deployed(cls, config: RunConfig, state: State, own: UserConfig) -> "Agency":
        """Of a deployed node, which begins with a table of its own choosing or with none; raises as `of` does."""
        return replace(cls.of(config, state, own), table=str(own.get("q-table", "")))

    def open_session(
        self, genesis: Genesis, organisation: Address, key: RoundKey, steps: int, megabytes: float
    ) -> "AgentSession":
        """Open an organisation's agent before a round: the steps of its full round, and the MiB it sends and receives.

        Raises FormatError for a saved table of another version or shape, UsageError for such a table to begin with.
        """
        members = len(genesis.lanes[key.lane])
        rounds, pool = genesis.training.rounds, self.pool or float(members)
        terms = Terms(pool, members, rounds, steps, megabytes, self.budget)
        notebook = Notebook(self.state.agent(genesis.digest, organisation))
        agent = notebook.agent_before(key.generation, key.round, terms)
        if agent is None:
            seed = seeds.as_int(seeds.local(genesis.seed, organisation, 0))
            table = read_table(Path(self.table)) if self.table else QTable(Learning())
            agent = Agent(terms, seed, table)
        return AgentSession(genesis, key, agent, notebook, self.prices)

    def bids(self, task: Task, steps: int) -> tuple[Bid, dict[str, float]]:
        """The bid that a task is trained by, and the metrics that carry the bid for the next round.

        `ABSTAIN` and no metrics where the agent will not pay; the whole round and none where agents do not bid.
        Raises as `open_session` does.
        """
        genesis = task.genesis
        if genesis.policy(task.round) != "q-learning":
            return Bid(steps, genesis.rank), {}
        key = RoundKey(genesis.digest, task.lane, task.generation, task.round)
        session = self.open_session(genesis, task.organisation, key, steps, traffic(task.state, genesis.wire))
        session.settle(task.paid)
        if (bid := session.begin()) == ABSTAIN:
            return ABSTAIN, {}
        next_bid = session.end()
        return bid, {"next-steps": float(next_bid.steps), "next-rank": float(next_bid.rank)}


_OWN = ("step-price", "traffic-price", "budget", "q-table")


@dataclass(frozen=True)
class AgentSession:
    """An agent at work on one message."""

    genesis: Genesis
    key: RoundKey
    agent: Agent
    notebook: Notebook
    prices: Prices

    def settle(self, paid: Mapping[int, float]) -> None:
        """Book what earlier rounds paid; a round that is over and not named paid nothing."""
        for decision in list(self.agent.waiting):
            if decision.round < self.key.round and (decision.round in paid or not decision.cost):
                self.agent.settle(decision.round, paid.get(decision.round, 0.0))

    def offer(self) -> Bid:
        """Bid for the round that is asked about."""
        bid = self._bid(self.key.round)
        self.notebook.note(self.key.generation, self.key.round - 1, self.agent)
        return bid

    def begin(self) -> Bid:
        """Spend the cost of the round; returns the bid to train by, `ABSTAIN` when the agent will not or cannot pay."""
        self.agent.decide(self.key.round, self.prices)
        if self.agent.perform(self.key.round, self.prices, drafted=True) is None:
            return ABSTAIN
        return self._bid(self.key.round)

    def end(self) -> Bid:
        """Bid for the next round and save; `ABSTAIN` after the last."""
        last = self.key.round >= self.genesis.training.rounds
        bid = ABSTAIN if last else self._bid(self.key.round + 1)
        self.notebook.note(self.key.generation, self.key.round, self.agent)
        return bid

    def _bid(self, number: int) -> Bid:
        action = self.agent.decide(number, self.prices)
        return action.bid(self.agent.terms.steps, self.genesis.rank) or ABSTAIN
