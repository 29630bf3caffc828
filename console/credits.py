"""`foedus credits`: what organisations earned, proved against the root on the public chain, and claimed by proof."""

import math
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from agents.rewards import cumulative
from chain.contract import BoundContract
from chain.credits import Credits
from chain.deployment import bind, endow
from console.options import JsonOption, RunArgument, RunChainOption, StateOption, command_app, state_of
from console.settings import saved
from console.views.tables import answer, table
from core import keys
from core.canonical import Address
from core.config import CREDITED, RunConfig
from core.credit import UNIT, CreditTree
from core.errors import UsageError
from core.keys import Key
from core.storage.run_folder import RunFolder

app = command_app()

_TOLERANCE = 1e-3
"""Of an amount measured anew."""


@app.command(epilog="Example: foedus credits --organisation medical --claim")
def credits(  # noqa: PLR0913, PLR0917 - one parameter an option
    run: RunArgument = "",
    organisation: Annotated[str | None, typer.Option(help="Only this one: name or address.")] = None,
    claim: Annotated[bool, typer.Option("--claim", help="Record its claim to its credit on the chain.")] = False,
    key: Annotated[
        Path | None,
        typer.Option("--key", help="Key file of the account that sends the claim [the organisation's own]."),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure every round's credit anew, as an auditor.")
    ] = False,
    chain: RunChainOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> int:
    """Show what organisations earned, and claim it on the public chain, each by its proof against the posted root."""
    folder = state_of(state)
    found = folder.existing(run)
    if claim and not organisation:
        raise UsageError("--claim: expected --organisation, the one whose credit is claimed, got none")
    settings, names = saved(folder, found.name), found.genesis.names
    tree = CreditTree.of(found.genesis.digest, _earned(found))
    asked = [found.genesis.named(organisation).address] if organisation else list(tree.cumulative)
    if missing := [names[address] for address in asked if address not in tree.cumulative]:
        raise UsageError(f"{missing[0]} has earned no credit in run {found.name}")
    bound = bind("PublicLedger", chain or settings.chain, folder.folder, None, contract=found.genesis.chain.contract)
    ledger = Credits(bound)
    if not measure:
        tree = _posted(found, ledger, tree)
    epoch, root = ledger.newest(tree.run)
    if claim:
        _claim(tree, asked[0], bound, _sender(found, settings, asked[0], key), on=chain or settings.chain)
    posted = ledger.epoch_of(tree)
    entries = {names[address]: _entry(tree, ledger, address, posted) for address in asked}
    if measure:
        _measure(found, settings, entries)
    result = {"run": found.name, "epoch": epoch, "root": root, "credits": entries}
    answer(result, [_table(entries, epoch)], as_json=as_json)
    return 0 if all(entry["proof_ok"] and entry.get("measured_ok", True) for entry in entries.values()) else 1


def _earned(run: RunFolder) -> dict[Address, float]:
    """Every organisation's payments in a run; raises UsageError where nobody is paid."""
    if (policy := run.genesis.participation.policy) not in CREDITED:
        paying = " or ".join(sorted(CREDITED))
        raise UsageError(f"run {run.name} pays nobody: expected participation {paying}, got {policy}")
    return cumulative(run)


def _posted(run: RunFolder, ledger: Credits, earned: CreditTree) -> CreditTree:
    """What was earned, if the chain has it; else what was earned up to the newest epoch, which lies with the run."""
    kept = (tree for _, tree in sorted(run.epochs().items(), reverse=True))
    return next((tree for tree in (earned, *kept) if ledger.epoch_of(tree)), earned)


def _sender(run: RunFolder, settings: RunConfig, organisation: Address, key: Path | None) -> Key:
    """The key that sends a claim: anybody's does, since the proof decides and the record is the organisation's."""
    member = run.genesis.named(organisation)
    if key is None and not member.derived:
        raise UsageError(f"--claim: expected --key, the key file of {member.name} or of another sender, got none")
    return keys.read(key.expanduser()) if key else keys.derive(settings.seed, member.name)


def _claim(tree: CreditTree, organisation: Address, bound: BoundContract, sender: Key, *, on: str) -> None:
    """Claim an organisation's credit; raises UsageError unless the tree's root is the posted one."""
    if on in ("embedded", "anvil"):
        endow(bound.node, sender)
    ledger = Credits(BoundContract(bound.node, "PublicLedger", bound.address, sender))
    if not ledger.epoch_of(tree):
        raise UsageError(f"expected the root {tree.root} in an epoch on the chain, got none: resume the run to post it")
    ledger.claim(tree, organisation)


def _entry(tree: CreditTree, ledger: Credits, address: Address, epoch: int) -> dict[str, Any]:
    earned, claimed = tree.cumulative[address], ledger.claimed(tree.run, address)
    return {
        "address": address,
        "earned": earned / UNIT,
        "units": str(earned),
        "proof": ["0x" + sibling.hex() for sibling in tree.proof(address)],
        "proof_ok": epoch > 0,
        "epoch": epoch,
        "claimed": claimed / UNIT,
        "claimable": max(earned - claimed, 0) / UNIT,
    }


def _measure(run: RunFolder, settings: RunConfig, entries: dict[str, dict[str, Any]]) -> None:
    """Add every organisation's payments measured anew, and whether they agree with the posted ones."""
    from server_app.measuring import credited_again  # noqa: PLC0415 - the base model's libraries, seconds of imports

    anew = credited_again(run, settings)
    for entry in entries.values():
        amount = anew.get(entry["address"], 0.0)
        # Equal to the bit in one environment; between machines, gradients differ in their last digits.
        agrees = math.isclose(amount, entry["earned"], rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
        entry |= {"measured": amount, "measured_ok": agrees}


def _table(entries: dict[str, dict[str, Any]], epoch: int) -> RenderableType:
    amounts = [name for name in ("earned", "claimed", "measured") if all(name in entry for entry in entries.values())]
    rows = (
        (name, *(f"{entry[amount]:.6f}" for amount in amounts), "holds" if entry["proof_ok"] else "does not hold")
        for name, entry in entries.items()
    )
    title = f"Epoch {epoch} on the public chain" if epoch else "Nothing is posted on the public chain"
    return table(title, ("organisation", *amounts, "proof"), rows, numbers=amounts)
