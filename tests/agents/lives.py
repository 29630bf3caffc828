"""An agent's life in a run in which income follows from the action alone."""

from agents.agent import Agent, Prices, Terms
from agents.q_function import Action, Learning, QFunction

TERMS = Terms(pool=8.0, members=8, rounds=40, steps=10, traffic=1.0, budget=1000.0)
PRICES = Prices(step=0.04, traffic=0.1)


def agent(seed: int = 2, terms: Terms = TERMS, **learning: float) -> Agent:
    """A new agent; one of an even seed begins with the first round."""
    return Agent(terms, seed, QFunction.untaught(Learning(**learning)))


def live(
    player: Agent, pays: dict[Action, float], first: int = 1, last: int = 40, prices: Prices = PRICES
) -> list[Action]:
    """Rounds in which income follows from the action alone; each is paid when the one after next is decided."""
    chosen = []
    for number in range(first, last + 1):
        if number > 2:
            done = player.decision(number - 2)
            player.settle(number - 2, pays[done.action] if done and done.cost else 0.0)
        chosen.append(player.decide(number, prices))
        player.perform(number, prices)
    return chosen
