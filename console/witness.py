"""`foedus witness`: the organisations' own check of their coordinator, at any time, by their own memory and ledger."""

from dataclasses import dataclass
from typing import Annotated

import typer

from chain.observer import observe
from client_app.witness import Witness
from console.options import JsonOption, RunChainOption, StateOption, command_app, federation_of, state_of
from console.settings import saved
from console.views.tables import answer
from core.canonical import Address
from core.errors import IntegrityError, LedgerUnreachableError, UsageError
from core.genesis import Genesis
from core.ledger import LedgerView
from core.round_key import RoundKey
from core.storage.state_folder import State

app = command_app()


@app.command(epilog="Example: foedus witness --chain https://rpc.example.org")
def witness(
    run: Annotated[str, typer.Argument(metavar="[RUN]", help="The federation's run id; the newest without it.")] = "",
    organisation: Annotated[str, typer.Option(help="Only this one: name or address.")] = "",
    chain: RunChainOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> int:
    """Check, as an organisation, every round that its coordinator has shown, the last ones too.

    The organisations are those whose memory lies here; they ask a ledger of their own choosing. The exit status is 1
    for a round that does not stand as it was shown, and for a ledger that cannot be reached.
    """
    folder = state_of(state)
    genesis = federation_of(folder, run)
    members = [genesis.named(organisation)] if organisation else list(genesis.everyone)
    known = [member for member in members if folder.witness(genesis.digest, member.address).exists()]
    if not known:
        raise UsageError(f"expected the memory of an organisation of run {genesis.run} in {folder.folder}, got none")
    where = chain or (saved(folder, genesis.run).chain if folder.settings(genesis.run).exists() else "")
    if not where:
        raise UsageError("--chain: expected a ledger to ask: embedded, anvil or an RPC URL, got none")
    ledger = observe(where, folder.folder, genesis.chain.contract)
    found = {member.name: check_memory(folder, genesis, member.address, ledger) for member in known}
    failures = [f"{name}: {check.failure}" for name, check in found.items() if check.failure]
    missing = [f"{name}: {key}" for name, check in found.items() for key in check.missing]
    rounds = {name: check.rounds for name, check in found.items()}
    unreachable = next((check.unreachable for check in found.values() if check.unreachable), None)
    lines = [*failures, *(f"{key}: not on the ledger" for key in missing)]
    lines += [f"the ledger cannot be reached, so nothing was compared with it: {unreachable}"] if unreachable else []
    stand = f"{sum(rounds.values())} rounds stand as they were shown to {', '.join(rounds)}"
    result = {"run": genesis.run, "ok": not lines, "rounds": rounds, "failures": failures, "missing": missing}
    answer(result | {"unreachable": unreachable}, lines or [stand], as_json=as_json)
    return 1 if lines else 0


@dataclass(frozen=True)
class WitnessCheck:
    """What became of the rounds that one organisation was shown.

    `failure` is the first thing that does not hold, `missing` are the rounds that are not on the ledger, `unreachable`
    says why the ledger was not asked; empty where there is none.
    """

    rounds: int
    failure: str = ""
    missing: tuple[RoundKey, ...] = ()
    unreachable: str = ""


def check_memory(folder: State, genesis: Genesis, member: Address, ledger: LedgerView) -> WitnessCheck:
    """What became of the rounds that a member whose memory lies in a state folder was shown."""
    rounds, caught = 0, ""
    try:
        memory = Witness(folder.witness(genesis.digest, member), genesis, member, ledger)
        rounds, caught = memory.rounds, memory.caught
        return WitnessCheck(rounds, caught, memory.confirm_all().behind)
    except IntegrityError as error:
        return WitnessCheck(rounds, str(error))
    except LedgerUnreachableError as error:
        # What its memory shows needs no ledger.
        return WitnessCheck(rounds, caught, unreachable=str(error))
