"""What `covenant status --agents` says of the agents of a run."""

from pathlib import Path

from agents.q_learning import Agent, Learning, Notebook, Prices, QTable, Terms
from console.agents import described, learnt
from core.places import State
from tests import federation as f
from tests.server_app.clients import Federation

TERMS = Terms(4.0, 4, 10, 10, 1.0, 100.0)
PRICES = Prices(0.02, 0.1)


def test_tables_are_shown_with_money_bars_and_words(tmp_path: Path) -> None:
    federation, state = Federation.found(tmp_path), State(tmp_path)
    agent = Agent(TERMS, 1, QTable(Learning()))
    for number in range(1, 9):
        agent.decide(number, PRICES)
        agent.perform(number, PRICES)
        agent.settle(number, 2.0)
    Notebook(state.agent(federation.genesis.digest, f.address("medical"))).save(0, 8, agent)
    found = learnt(state, federation.run)
    assert set(found) == {"medical"}
    assert found["medical"]["spent"] == agent.spent
    lines = list(described(found))
    assert lines[0] == f"medical: spent {agent.spent:.3f}, earned 16.000, 8 decisions"
    assert any("cost fair" in line for line in lines)
    assert any(line.startswith("  full") and "█" in line for line in lines)
    assert any("it takes part" in line for line in lines)


def test_a_run_without_agents_has_none(tmp_path: Path) -> None:
    assert learnt(State(tmp_path), Federation.found(tmp_path).run) == {}
