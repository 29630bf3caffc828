"""`foedus credits`: what organisations have earned, whether the chain's root says so, and claiming it by proof."""

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from agents.rewards import cumulative
from chain.contract import BoundContract
from chain.credits import UNIT, Credits, CreditTree
from chain.deployment import bind, endow
from console.options import JsonOption, RunArgument, StateOption, answer, state_of
from console.settings import saved
from core import keys
from core.canonical import Address
from core.config import CREDITED, RunConfig
from core.errors import UsageError
from core.keys import Key
from core.storage.run_folder import RunFolder
from core.storage.state_folder import State

_TOLERANCE = 1e-3
"""Of an amount measured anew: gradients differ in their last digits between machines."""


def credits(  # noqa: PLR0913, PLR0917 - one parameter an option
    run: RunArgument = "",
    organisation: Annotated[str | None, typer.Option(help="Only this one: name or address.")] = None,
    claim: Annotated[bool, typer.Option("--claim", help="Record on the chain that it claims what it earned.")] = False,
    key: Annotated[
        Path | None,
        typer.Option("--key", help="Key file of the account that sends the claim [the organisation's own]."),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure every round's credit anew, as an auditor.")
    ] = False,
    chain: Annotated[str | None, typer.Option(help="embedded, anvil or an RPC URL [the run's own].")] = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> int:
    """What organisations earned, proved against the root on the public chain; and claims by that proof."""
    folder = state_of(state)
    found = folder.existing(run)
    if claim and not organisation:
        raise UsageError("--claim got no --organisation, the one whose credit is claimed wanted")
    if (policy := found.genesis.participation.policy) not in CREDITED:
        raise UsageError(
            f"run {found.name} pays nobody: participation is {policy}, {' or '.join(sorted(CREDITED))} wanted"
        )
    tree = CreditTree.of(found.genesis.digest, cumulative(folder.credits(found.name), found))
    asked = [found.genesis.named(organisation).address] if organisation else list(tree.cumulative)
    if missing := [address for address in asked if address not in tree.cumulative]:
        raise UsageError(f"{found.genesis.names[missing[0]]} has earned no credit in run {found.name}")
    settings = saved(folder, found.name)
    sender = _sender(found, settings, asked[0], key) if claim else None
    ledger = _ledger(folder, found, chain or settings.chain, sender)
    epoch, root = ledger.newest(found.genesis.digest)
    if claim:
        if not (epoch and tree.holds(asked[0], root)):
            raise UsageError(
                f"run {found.name} has another root on the chain (epoch {epoch}): resume it to post this one"
            )
        ledger.claim(tree, asked[0])
    anew = _measured(found, settings) if measure else {}
    names = found.genesis.names
    entries = {names[address]: _entry(tree, ledger, address, epoch, root) for address in asked}
    for address in asked if measure else ():
        amount = anew.get(address, 0.0)
        entries[names[address]] |= {"measured": amount, "measured_ok": _close(amount, tree.cumulative[address] / UNIT)}
    answer({"run": found.name, "epoch": epoch, "root": root, "credits": entries}, _lines(entries, epoch), as_json)
    return 0 if all(entry["proof_ok"] and entry.get("measured_ok", True) for entry in entries.values()) else 1


def _measured(run: RunFolder, settings: RunConfig) -> dict[Address, float]:
    from server_app.measuring import credited_again  # noqa: PLC0415 - the base model's libraries, seconds of imports

    return credited_again(run, settings)


def _close(measured: float, posted: float) -> bool:
    """Whether two amounts agree: to the bit in one environment, and up to rounding in another."""
    return math.isclose(measured, posted, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)


def _entry(tree: CreditTree, ledger: Credits, address: Address, epoch: int, root: Any) -> dict[str, Any]:
    earned, claimed = tree.cumulative[address], ledger.claimed(tree.run, address)
    return {
        "address": address,
        "earned": earned / UNIT,
        "units": str(earned),
        "proof": ["0x" + sibling.hex() for sibling in tree.proof(address)],
        "proof_ok": bool(epoch) and tree.holds(address, root),
        "claimed": claimed / UNIT,
        "claimable": max(earned - claimed, 0) / UNIT,
    }


def _lines(entries: dict[str, dict[str, Any]], epoch: int) -> list[str]:
    width = max(map(len, entries), default=0)
    lines = [f"Epoch {epoch} on the public chain" if epoch else "Nothing is posted on the public chain"]
    for name, entry in entries.items():
        again = f"  measured {entry['measured']:.6f}" if "measured" in entry else ""
        proof = "proof holds" if entry["proof_ok"] else "proof does not hold"
        lines.append(f"{name:<{width}}  earned {entry['earned']:.6f}  claimed {entry['claimed']:.6f}{again}  {proof}")
    return lines


def _ledger(state: State, run: RunFolder, chain: str, sender: Key | None) -> Credits:
    """The run's credits on a chain; whoever sends on a development chain is given funds."""
    bound = bind("PublicLedger", chain, state.folder, None, contract=run.genesis.chain.contract)
    if sender and chain in ("embedded", "anvil"):
        endow(bound.node, sender)
    return Credits(BoundContract(bound.node, "PublicLedger", bound.address, sender))


def _sender(run: RunFolder, settings: RunConfig, organisation: Address, key: Path | None) -> Key:
    """Who sends the claim: anybody may, since the proof decides and the record is the organisation's."""
    member = run.genesis.named(organisation)
    if key is None and not member.derived:
        raise UsageError(f"--claim got no --key, the key file of {member.name} or of whoever sends it wanted")
    return keys.read(key.expanduser()) if key else keys.derive(settings.seed, member.name)
