"""An organisation's own view, from what lies on its machine: what it signed, earned and learnt, and its coordinator.

A node's state folder has no run, only what its organisation remembers of a federation.
"""

from collections import Counter
from contextlib import suppress
from typing import Any

from console.views import agents
from console.views.sent import totals
from console.witness import check_memory
from core.canonical import Address, from_json
from core.errors import FoedusError
from core.escape import redacted
from core.genesis import Genesis
from core.ledger import LedgerView
from core.privacy import PrivacyPlan
from core.storage import jsonl
from core.storage.state_folder import State

Json = dict[str, Any]


def federations(state: State) -> dict[str, Genesis]:
    """The federations of which an organisation here keeps a memory, by run, the oldest first."""
    known: dict[str, Genesis] = {}
    for run in state.runs():
        with suppress(FoedusError):  # what is damaged hides nothing else
            known[run.name] = run.genesis
    for path in sorted(state.agreed_genesis().glob("*.json")):
        with suppress(FoedusError):
            genesis = Genesis.from_message(from_json(path.read_bytes()))
            known.setdefault(genesis.run, genesis)
    return {run: genesis for run, genesis in known.items() if members(state, genesis)}


def members(state: State, genesis: Genesis) -> dict[str, Address]:
    """The organisations of a federation whose memory lies here, by name."""
    here = (o for o in genesis.everyone if state.witness(genesis.digest, o.address).exists())
    return dict(sorted((organisation.name, organisation.address) for organisation in here))


def site(state: State, genesis: Genesis, name: str) -> Json:
    """What one of them did and knows; its agent's table where it has an agent."""
    address = members(state, genesis)[name]
    entries = jsonl.read(state.witness(genesis.digest, address))
    signed = Counter(entry["sent"]["round"] for entry in entries if "sent" in entry)
    privacy = PrivacyPlan.of(genesis, address)
    return {
        "name": name, "address": address, "examples": genesis.examples[address], "updates": sum(signed.values()),
        "rounds": sorted(signed), "again": {number: times for number, times in signed.items() if times > 1},
        "left": totals(jsonl.read(state.sent), genesis.run) if state.sent.exists() else None,
        "shown": sum("shown" in entry for entry in entries), "privacy": privacy,
        "agent": agents.learnt_by(state, genesis, address),
    }  # fmt: skip


def coordinator(state: State, genesis: Genesis, name: str, ledger: LedgerView) -> tuple[bool, str]:
    """Whether every round stands on a ledger as it was shown to an organisation, and what was found, in words."""
    try:
        found = check_memory(state, genesis, members(state, genesis)[name], ledger)
    except FoedusError as error:
        return False, redacted(str(error))
    if found.failure or found.unreachable:
        return False, found.failure or f"the ledger cannot be reached: {found.unreachable}"
    if found.missing:
        return False, f"not on the ledger: {'; '.join(map(str, found.missing))}"
    return True, f"{found.rounds} rounds stand on the ledger as they were shown"
