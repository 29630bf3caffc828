"""The agents of a run: bids and payments round by round, money, policy and reasons."""

from pathlib import Path

from agents.agent import Agent, Prices, Terms
from agents.notebook import Notebook
from agents.table import Learning, QTable
from console.views.agents import learnt, market, tables
from core.storage.events import EventLog
from core.storage.state_folder import State
from tests import federation as f
from tests.console.views.printed import printed
from tests.server_app.clients import Federation

TERMS = Terms(4.0, 4, 10, 10, 1.0, 100.0)
PRICES = Prices(0.02, 0.1)


def test_tables_are_shown_with_money_bars_and_words(tmp_path: Path) -> None:
    federation, state = Federation.create(tmp_path), State(tmp_path)
    agent = Agent(TERMS, 1, QTable(Learning()))
    for number in range(1, 9):
        agent.decide(number, PRICES)
        agent.perform(number, PRICES)
        agent.settle(number, 2.0)
    Notebook(state.agent(federation.genesis.digest, f.address("medical"))).note(0, 8, agent)
    found = learnt(state, federation.run, 100.0)
    assert set(found) == {"medical"}
    assert found["medical"]["spent"] == agent.spent
    assert found["medical"]["left"] == agent.left
    left = f"{agent.left:.3f} left of 100"
    text = printed(tables(found))
    assert f"medical: spent {agent.spent:.3f}, {left}, earned 16.000, 8 decisions" in text
    assert "left of" not in printed(tables(learnt(state, federation.run)))
    assert "cost fair" in text
    assert any("full" in line and "█" in line for line in text.splitlines())
    assert "it takes part" in text


def test_a_run_without_agents_has_none(tmp_path: Path) -> None:
    run = Federation.create(tmp_path).run
    assert learnt(State(tmp_path), run) == {}
    assert market(State(tmp_path), run) == []


def test_bids_are_shown_with_what_became_of_them(tmp_path: Path) -> None:
    """Of the round's last attempt; nothing that a client says reaches the terminal as more than text."""
    federation, state = Federation.create(tmp_path, ("coding", "financial", "medical")), State(tmp_path)
    federation.start()
    events = EventLog(state.events(federation.run.name))
    coding, financial, medical = (f.address(name) for name in ("coding", "financial", "medical"))
    events.write("bid-rejected", round=1, organisation=financial, reason="no-reply: its agent did not answer")
    events.write("bids", lane=0, round=1, bids={})
    events.write("round-started", round=1, asked=[])
    events.write("bid-rejected", round=1, organisation=medical, reason="bid-out-of-range: 9 steps")
    bids = {coding: {"steps": 2, "rank": 1}, financial: {"steps": 0, "rank": 0}}
    events.write("bids", lane=0, round=1, bids=bids)
    events.write("round-started", round=1, asked=[coding])
    (first,) = market(state, federation.run)
    assert first["bids"] == {
        "coding": {"status": "accepted", "steps": 2, "rank": 1},
        "financial": {"status": "abstained"},
        "medical": {"status": "rejected", "reason": "bid-out-of-range: 9 steps"},
    }
    text = printed(tables({}, [first]))
    assert "Round 1, lane 0" in text
    rows = [" ".join(line.replace("│", " ").split()) for line in text.splitlines() if line.startswith("│")]
    assert rows == ["coding 2 steps, rank 1 –", "financial abstained –", "medical bid-out-of-range: 9 steps –"]
