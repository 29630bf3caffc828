"""The agents of a run, as JSON and as tables: bids and earnings round by round, and the learnt policies.

Bids made apart from training are in the event log alone; credits and payments are read from where they were measured
(agents/rewards.py). Money and policy of an agent are known as far as its states lie in this state folder.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import RenderableType

from agents.agent import Terms
from agents.notebook import Notebook
from agents.q_function import Action, explain, policy_table
from agents.rewards import credited
from console.views.tables import table
from core.canonical import Address
from core.credit import CreditRecord
from core.genesis import Genesis
from core.rejections import Reason
from core.rounds import RoundRecord
from core.storage.events import EventLog
from core.storage.run_folder import RunFolder
from core.storage.state_folder import State

Json = dict[str, Any]

_BAR = 20
"""Width of the bar of the action taken most often."""


def market(state: State, run: RunFolder) -> list[Json]:
    """Every round of the lineage: bids, credit of each domain, and payments, organisations by name.

    A bid is `accepted`, `abstained` or `rejected`, the latter two with a reason where one is known. Empty where nobody
    bids and nothing is credited.
    """
    events, _ = EventLog.read(state.events(run.name))
    bids: dict[tuple[int, int], Json] = {}
    refused: dict[int, dict[Address, str]] = {}
    reasons: dict[Address, str] = {}
    for event in events:
        match event["event"]:
            case "bids":
                bids[event["lane"], event["round"]] = event["bids"]
            case "bid-rejected":
                reasons[event["organisation"]] = event["reason"]
            case "round-started":  # it ends a consultation: only the reasons of a round's last one count
                refused[event["round"]], reasons = reasons, {}
    rounds = [
        _round(run, record, bids.get((record.lane, record.round)), refused.get(record.round, {}), measured)
        for record, measured in credited(run)
    ]
    return sorted((r for r in rounds if r["bids"] or r["paid"]), key=lambda r: (r["round"], r["lane"]))


def learnt(state: State, run: RunFolder, budget: float | None = None) -> Json:
    """Each organisation's money, policy and reasons, by name; empty for a run without agents.

    `budget` is that of each, where it is known. Raises FormatError for a saved agent of another version.
    """
    found = {o.name: learnt_by(state, run.genesis, o.address, budget) for o in run.genesis.everyone}
    return {name: agent for name, agent in found.items() if agent}


def learnt_by(state: State, genesis: Genesis, organisation: Address, budget: float | None = None) -> Json | None:
    """One organisation's money, policy and reasons; None where no agent of it has saved anything here."""
    lane, *_ = genesis.lanes_of(organisation)
    terms = Terms(1.0, len(genesis.lanes[lane]), genesis.training.rounds, 1, 0.0, 0.0)
    agent = Notebook(state.agent(genesis.digest, organisation)).newest(terms)
    if not agent:
        return None
    return {
        "budget": budget,
        "spent": agent.spent,
        "left": None if budget is None else budget - agent.spent,
        "earned": agent.earned,
        "decisions": agent.decisions,
        "policy": [list(row) for row in policy_table(agent.values)],
        "rounds": {action.name.lower(): agent.values.visits[action] for action in Action},
        "reasons": list(explain(agent.values)),
    }


def tables(agents: Json, rounds: Iterable[Json] = ()) -> list[RenderableType]:
    """The same for people: a table of each round; then each agent's money, policy, actions and reasons."""
    parts: list[RenderableType] = [_round_table(entry) for entry in rounds]
    for name, agent in agents.items():
        left = "" if agent["left"] is None else f", {agent['left']:.3f} left of {agent['budget']:g}"
        money = f"spent {agent['spent']:.3f}{left}, earned {agent['earned']:.3f}"
        headings, *rows = agent["policy"]
        parts.append(table(f"{name}: {money}, {agent['decisions']} decisions", headings, rows))
        most = max(agent["rounds"].values()) or 1
        actions = [(action, count, "█" * round(_BAR * count / most)) for action, count in agent["rounds"].items()]
        parts.append(table(f"{name}: rounds by action", ("action", "rounds", ""), actions, numbers=("rounds",)))
        parts.extend(agent["reasons"])
    return parts


def _round(
    run: RunFolder,
    record: RoundRecord,
    bids: Json | None,
    refused: Mapping[Address, str],
    measured: CreditRecord | None,
) -> Json:
    names = run.genesis.names
    members = run.members(record.lane, record.generation)
    domains = measured.credit.domains if measured else {}
    return {
        "round": record.round,
        "lane": record.lane,
        "generation": record.generation,
        "bids": {} if bids is None else {names[m]: _bid(bids.get(m), refused.get(m)) for m in members},
        "credits": {domain: {names[a]: nats for a, nats in part.credits.items()} for domain, part in domains.items()},
        "nobody": {domain: part.nobody for domain, part in domains.items()},
        "residual": {domain: part.residual for domain, part in domains.items()},
        "paid": {names[a]: amount for a, amount in measured.incomes.items()} if measured else {},
    }


def _bid(bid: Json | None, reason: str | None) -> Json:
    if bid is not None and bid["steps"]:
        return {"status": "accepted", **bid}
    if reason is None:
        return {"status": "abstained"}
    return {"status": "abstained" if reason.startswith(Reason.ABSTAINED) else "rejected", "reason": reason}


def _round_table(entry: Json) -> RenderableType:
    """For each organisation its bid, its credit of each domain in nats, and its payment."""
    credits = [f"{domain} [nats]" for domain in entry["credits"]]
    bids = {
        name: f"{bid['steps']} steps, rank {bid['rank']}" if "steps" in bid else bid.get("reason", bid["status"])
        for name, bid in entry["bids"].items()
    }
    rows = (
        (
            name,
            bids.get(name),
            *(_signed(domain.get(name)) for domain in entry["credits"].values()),
            _signed(entry["paid"].get(name)),
        )
        for name in sorted({*entry["bids"], *entry["paid"]})
    )
    title = f"Round {entry['round']}, lane {entry['lane']}"
    return table(title, ("", "bid", *credits, "paid"), rows, numbers=(*credits, "paid"))


def _signed(value: float | None) -> str | None:
    return None if value is None else f"{value:+.4f}"
