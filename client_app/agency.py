"""An organisation's agent at home: its prices, its budget, its saved tables, and what it answers.

A simulation takes prices and budget from the run's settings; a deployed node says its own in its node-config:
``step-price, traffic-price, budget, q-table``. The tables lie in the organisation's own state folder.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flwr.app import UserConfig

from agents.agent import Agent, Prices, Terms
from agents.notebook import Notebook
from agents.table import Learning, QTable, read_table
from core import seeds
from core.canonical import Address
from core.config import RunConfig
from core.genesis import Genesis
from core.round_key import RoundKey
from core.storage.state_folder import State
from core.update import ABSTAIN, Bid


@dataclass(frozen=True)
class Agency:
    """What the organisations of a node pay and will spend, and where their agents' tables lie."""

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

    def open_session(
        self, genesis: Genesis, organisation: Address, key: RoundKey, steps: int, traffic: float
    ) -> "AgentSession":
        """Open an organisation's agent before a round; `steps` are those of its full round, `traffic` its MiB.

        Raises FormatError for a saved table of another version or shape, UsageError for such a one to begin with.
        """
        members = len(genesis.lanes[key.lane])
        rounds, pool = genesis.training.rounds, self.pool or float(members)
        terms = Terms(pool, members, rounds, steps, traffic, self.budget)
        notebook = Notebook(self.state.agent(genesis.digest, organisation))
        agent = notebook.before(key.generation, key.round, terms)
        if agent is None:
            seed = seeds.as_int(seeds.local(genesis.seed, organisation, 0))
            table = read_table(Path(self.table)) if self.table else QTable(Learning())
            agent = Agent(terms, seed, table)
        return AgentSession(genesis, key, agent, notebook, self.prices)


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
        self.notebook.save(self.key.generation, self.key.round - 1, self.agent)
        return bid

    def begin(self) -> Bid:
        """Spend what the round costs and say what is trained; `ABSTAIN` when the agent will not, or cannot pay."""
        self.agent.decide(self.key.round, self.prices)
        if self.agent.perform(self.key.round, self.prices, drafted=True) is None:
            return ABSTAIN
        return self._bid(self.key.round)

    def end(self) -> Bid:
        """Bid for the next round and save; `ABSTAIN` after the last."""
        last = self.key.round >= self.genesis.training.rounds
        bid = ABSTAIN if last else self._bid(self.key.round + 1)
        self.notebook.save(self.key.generation, self.key.round, self.agent)
        return bid

    def _bid(self, number: int) -> Bid:
        action = self.agent.decide(number, self.prices)
        return action.bid(self.agent.terms.steps, self.genesis.rank) or ABSTAIN
