"""The agents of a run: what they bid and earned round by round, and what they have learnt.

Bids that came apart from training stand in the event log alone; credits and payments are read from where they were
measured (agents/rewards.py). Money and policy of an agent are known as far as its tables lie in this state folder.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from agents.q_learning import Agent, Notebook, Terms, explain, policy_table
from agents.rewards import credited
from core.canonical import Address
from core.rejections import Reason
from core.rounds import RoundRecord
from core.storage.events import EventLog
from core.storage.run_folder import RunFolder
from core.storage.state_folder import State

Json = dict[str, Any]


def market(state: State, run: RunFolder) -> list[Json]:
    """Every round of the lineage: bids, credit of each domain, and payments, organisations by name.

    A bid is `accepted`, `abstained` or `rejected`, the latter two with a reason where one is known. Empty where nobody
    bids and nothing is credited.
    """
    events, _ = EventLog.read(state.events(run.name))
    bids = {(event["lane"], event["round"]): event["bids"] for event in events if event["event"] == "bids"}
    refused = _refused(events)
    rounds = [
        _round(run, record, bids.get((record.lane, record.round)), refused.get(record.round, {}), found)
        for record, found in credited(state.credits(run.name), run)
    ]
    return sorted((r for r in rounds if r["bids"] or r["paid"]), key=lambda r: (r["round"], r["lane"]))


def learnt(state: State, run: RunFolder, budget: float | None = None) -> Json:
    """Each organisation's money, policy and reasons, by name; empty for a run without agents.

    `budget` is what each may spend, where that is known. Raises FormatError for a saved table of another version or
    shape.
    """
    found: Json = {}
    for member in run.genesis.organisations:
        lane, *_ = run.genesis.lanes_of(member.address)
        terms = Terms(1.0, len(run.genesis.lanes[lane]), run.genesis.training.rounds, 1, 0.0, 0.0)
        agent = Notebook(state.agent(run.genesis.digest, member.address)).newest(terms)
        if agent:
            found[member.name] = _shown(agent, budget)
    return found


def described(agents: Json, rounds: Iterable[Json] = ()) -> Iterator[str]:
    """The same for people: a table of each round; then money, a table, a bar for each action, and words."""
    for entry in rounds:
        yield from _table(f"Round {entry['round']}, lane {entry['lane']}", _rows(entry))
    for name, agent in agents.items():
        left = "" if agent["left"] is None else f", {agent['left']:.3f} left of {agent['budget']:g}"
        money = f"spent {agent['spent']:.3f}{left}, earned {agent['earned']:.3f}"
        yield from _table(f"{name}: {money}, {agent['decisions']} decisions", agent["policy"])
        most = max(agent["rounds"].values()) or 1
        for action, count in agent["rounds"].items():
            yield f"  {action:<8} {'█' * round(20 * count / most)} {count}"
        yield from (f"  {sentence}" for sentence in agent["reasons"])


def _refused(events: Iterable[Json]) -> dict[int, dict[Address, str]]:
    """Why bids of the last consultation for a round do not count."""
    found: dict[int, dict[Address, str]] = {}
    waiting: dict[Address, str] = {}
    for event in events:
        if event["event"] == "bid-rejected":
            waiting[event["organisation"]] = event["reason"]
        elif event["event"] == "round-started":  # every consultation ends with one
            found[event["round"]], waiting = waiting, {}
    return found


def _round(
    run: RunFolder,
    record: RoundRecord,
    bids: Mapping[Address, Json] | None,
    refused: Mapping[Address, str],
    found: Json | None,
) -> Json:
    names = run.genesis.names
    members = run.members(record.lane, record.generation)
    domains = found["domains"] if found else {}
    return {
        "round": record.round,
        "lane": record.lane,
        "generation": record.generation,
        "bids": {} if bids is None else {names[m]: _bid(bids.get(m), refused.get(m)) for m in members},
        "credits": {part: {names[a]: nats for a, nats in v["credits"].items()} for part, v in domains.items()},
        "nobody": {part: values["nobody"] for part, values in domains.items()},
        "residual": {part: values["residual"] for part, values in domains.items()},
        "paid": {names[a]: amount for a, amount in found["incomes"].items()} if found else {},
    }


def _bid(bid: Json | None, reason: str | None) -> Json:
    if bid is not None and bid["steps"]:
        return {"status": "accepted", **bid}
    if reason is None:
        return {"status": "abstained"}
    return {"status": "abstained" if reason.startswith(Reason.ABSTAINED) else "rejected", "reason": reason}


def _rows(entry: Json) -> Iterator[tuple[str, ...]]:
    """A heading, then for each organisation its bid, its credit of each domain in nats, and what it was paid."""
    yield "", "bid", *(f"{part} [nats]" for part in entry["credits"]), "paid"
    for name in sorted({*entry["bids"], *entry["paid"]}):
        credits = (_number(part.get(name)) for part in entry["credits"].values())
        yield name, _said(entry["bids"].get(name)), *credits, _number(entry["paid"].get(name))


def _said(bid: Json | None) -> str:
    if bid is None:
        return "–"
    if bid["status"] == "accepted":
        return f"{bid['steps']} steps, rank {bid['rank']}"
    return str(bid.get("reason") or bid["status"])


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:+.4f}"


def _table(title: str, rows: Iterable[Iterable[str]]) -> Iterator[str]:
    cells = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    yield title
    for row in cells:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _shown(agent: Agent, budget: float | None) -> Json:
    return {
        "budget": budget,
        "spent": agent.spent,
        "left": None if budget is None else budget - agent.spent,
        "earned": agent.earned,
        "decisions": agent.decisions,
        "policy": [list(row) for row in policy_table(agent.table)],
        "rounds": agent.table.visits,
        "reasons": list(explain(agent.table)),
    }
