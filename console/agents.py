"""What the agents of a run have learnt, as far as their tables lie in this state folder."""

from collections.abc import Iterator
from typing import Any

from agents.q_learning import Agent, Notebook, Terms, explain, policy_table
from core.places import State
from core.store import RunFolder


def learnt(state: State, run: RunFolder) -> dict[str, Any]:
    """Each organisation's money, policy and reasons, by name; empty for a run without agents.

    Raises FormatError for a saved table of another version or shape.
    """
    found: dict[str, Any] = {}
    for member in run.genesis.organisations:
        lane, *_ = run.genesis.lanes_of(member.address)
        terms = Terms(1.0, len(run.genesis.lanes[lane]), run.genesis.training.rounds, 1, 0.0, 0.0)
        agent = Notebook(state.agent(run.genesis.digest, member.address)).newest(terms)
        if agent:
            found[member.name] = _shown(agent)
    return found


def described(agents: dict[str, Any]) -> Iterator[str]:
    """The same for people: a table, a bar for each action, and words."""
    for name, agent in agents.items():
        yield f"{name}: spent {agent['spent']:.3f}, earned {agent['earned']:.3f}, {agent['decisions']} decisions"
        widths = [max(map(len, column)) for column in zip(*agent["policy"], strict=True)]
        for row in agent["policy"]:
            yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        most = max(agent["rounds"].values()) or 1
        for action, count in agent["rounds"].items():
            yield f"  {action:<8} {'█' * round(20 * count / most)} {count}"
        yield from (f"  {sentence}" for sentence in agent["reasons"])


def _shown(agent: Agent) -> dict[str, Any]:
    return {
        "spent": agent.spent,
        "earned": agent.earned,
        "decisions": agent.decisions,
        "policy": [list(row) for row in policy_table(agent.table)],
        "rounds": agent.table.visits,
        "reasons": list(explain(agent.table)),
    }
