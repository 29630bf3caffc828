"""The market of organisations as a PettingZoo environment, for agents from elsewhere."""

from typing import Any, ClassVar

import numpy as np
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray
from pettingzoo import ParallelEnv

from agents.agent import Agent
from agents.market import Market, MarketRound, Scenario
from agents.q_function import Action, Learning, QFunction


class MarketEnv(ParallelEnv):  # type: ignore[misc] # PettingZoo has no types
    """Organisations of a federation that decide, each for itself, how much to take part in its rounds.

    ## Description
    A federation trains for a fixed number of rounds. In each, every organisation abstains or takes part at low, medium
    or full effort; it pays for its local steps and its traffic, and is paid from a common pool in proportion to its
    update's effect on the loss on the shared validation set. Some are free-riders or saboteurs; some are away for a
    while; some prices rise in mid-run. An organisation that is away or cannot pay abstains whatever it bids.

    ## Action Space
    `Discrete(4)` for each organisation: 0 abstain, 1 low (a quarter of the local steps, half the adapter's columns),
    2 medium (half the steps), 3 full.

    ## Observation Space
    `Box(0, inf, (4,))`: income over cost of the organisation's rounds so far (0 before any is paid), the price of a
    full round in equal shares of the pool, the budget left over the price of the rest of the run in full, and the share
    of the rounds that are over. As in a federation, the observation before a bid knows the payments of all rounds but
    the last.

    ## Rewards
    The payoff, income − cost in equal shares of a round's pool, of the round before the one just run (a round is paid
    one round late); after the last round, of the last two together.

    ## Starting State
    Nobody has taken part; nothing is paid, budgets are full. Which organisations there are follows from the trace:
    that of the constructor, or `seed` in `reset`.

    ## Episode End
    All are terminated together after the scenario's rounds. Nothing is truncated.

    ## Arguments
    `scenario`: a `Scenario`; `members`: how many organisations; `trace`: the number that everything is drawn from.

    ## Version History
    v1: observations are numbers instead of classes. v0: the first.
    """

    metadata: ClassVar[dict[str, Any]] = {"name": "foedus_market_v1", "render_modes": []}

    def __init__(self, scenario: Scenario, members: int, trace: int = 1) -> None:
        self.scenario, self.members, self.trace = scenario, members, trace
        self.render_mode = None
        self.possible_agents = [f"organisation {member}" for member in range(members)]
        self.agents: list[str] = []
        self._observed = {name: Box(0.0, np.inf, (4,), np.float64) for name in self.possible_agents}
        self._acted = {name: Discrete(len(Action)) for name in self.possible_agents}

    def observation_space(self, agent: str) -> Box:
        """See Observation Space above."""
        return self._observed[agent]

    def action_space(self, agent: str) -> Discrete:
        """See Action Space above."""
        return self._acted[agent]

    def reset(
        self,
        seed: int | None = None,
        options: dict[str, Any] | None = None,  # noqa: ARG002 - PettingZoo's signature
    ) -> tuple[dict[str, NDArray[np.float64]], dict[str, dict[str, Any]]]:
        """Begin the trace again, or that of the number `seed`."""
        self.trace = self.trace if seed is None else seed
        self.market = Market(self.scenario, self.members, self.trace)
        self.agents = list(self.possible_agents)
        # Agents that never decide: they only keep the books that observations are made of.
        untaught = QFunction.untaught(Learning())
        self._books = [Agent(self.market.terms(k), 0, untaught) for k in range(self.members)]
        self._unpaid: MarketRound | None = None
        return self._observations(), {name: {} for name in self.agents}

    def step(
        self, actions: dict[str, int]
    ) -> tuple[
        dict[str, NDArray[np.float64]], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]
    ]:
        """Run a round."""
        names, number = list(self.agents), self.market.number
        chosen = np.array([int(actions.get(name, 0)) for name in names])
        outcome = self.market.step(chosen)
        for member, book in enumerate(self._books):
            book.take(number, Action(int(outcome.actions[member])))
            book.perform(number, self.market.prices(member, number))
            if self._unpaid is not None:  # a round is paid one round late
                book.settle(number - 1, float(self._unpaid.incomes[member]))
        due = np.zeros(self.members) if self._unpaid is None else self._unpaid.incomes - self._unpaid.costs
        self._unpaid, over = outcome, self.market.over
        rewards = due + (outcome.incomes - outcome.costs if over else 0.0)
        observations = self._observations()
        infos = {n: {"loss": self.market.loss, "took part": bool(outcome.actions[k])} for k, n in enumerate(names)}
        if over:
            self.agents = []
        ended = dict.fromkeys(names, over)
        return observations, dict(zip(names, rewards.tolist(), strict=True)), ended, dict.fromkeys(names, False), infos

    def _observations(self) -> dict[str, NDArray[np.float64]]:
        # After the last round there is no next one whose prices could be observed.
        number = min(self.market.number, self.market.rounds)
        observed = {}
        for member, name in enumerate(self.possible_agents):
            book = self._books[member]
            full = self.market.prices(member, number).cost(Action.FULL, book.terms)
            rest = full * (book.terms.rounds - number + 1)
            gain = book.earned / book.spent if book.earned else 0.0
            phase = (number - 1) / book.terms.rounds
            observed[name] = np.array([gain, full / book.terms.share, book.left / rest, phase])
        return observed
