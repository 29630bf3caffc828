"""`foedus proof`: that one organisation's update was admitted to one round, for anybody to check."""

from pathlib import Path
from typing import Annotated

import typer

from chain.ledger import open_ledger
from chain.participation import ParticipationProof
from console.options import JsonOption, RunArgument, StateOption, answer, read_file, state_of
from core.errors import IntegrityError, UsageError
from core.rounds import RoundRecord
from core.storage.blobs import write
from core.storage.run_folder import RunFolder
from core.storage.state_folder import State
from core.update import Organisation


def proof(  # noqa: PLR0913, PLR0917 - one parameter an option
    run: RunArgument = "",
    organisation: Annotated[str, typer.Option(help="Whose update: a name or an address.")] = "",
    number: Annotated[int, typer.Option("--round", min=0, help="In which round.")] = 0,
    out: Annotated[Path | None, typer.Option(help="The file to write.")] = None,
    check: Annotated[Path | None, typer.Option(help="A proof to check instead; needs no run.")] = None,
    chain: Annotated[str, typer.Option(help="Where to check it: embedded, anvil or an RPC URL.")] = "embedded",
    state: StateOption = None,
    as_json: JsonOption = False,
) -> int:
    """Prove that an organisation took part in a round, or check such a proof against the chain."""
    folder = state_of(state)
    if check is not None:
        return _check(check, chain, folder, as_json)
    if not (organisation and number and out):
        raise UsageError("got no --check FILE, so --organisation NAME, --round N and --out FILE are wanted")
    found = folder.existing(run)
    member = found.genesis.named(organisation)
    record = _record(found, member, number)
    made = ParticipationProof.of(record, found.salts(record), member.address, found.genesis.chain)
    path = out.expanduser().absolute()
    write(path, made.to_json())
    result = {"run": found.name, "organisation": member.name, "round": number, "path": str(path)}
    answer(result, [f"Proof    {path}"], as_json)
    return 0


def _check(path: Path, chain: str, state: State, as_json: bool) -> int:
    held = ParticipationProof.from_json(read_file("proof", path, "a file of `foedus proof`"))
    manifest = held.signed.value
    said = {"organisation": manifest.organisation, "genesis": manifest.genesis, "round": manifest.round}
    try:
        anchor = held.check_on_chain(open_ledger(chain, state.folder, None, held.chain.contract))
    except IntegrityError as error:
        answer({"ok": False, **said, "failure": str(error)}, [f"The proof does not hold: {error}"], as_json)
        return 1
    line = f"{manifest.organisation} took part in round {manifest.round}: transaction {anchor.transaction}"
    answer({"ok": True, **said, "transaction": anchor.transaction, "block": anchor.block}, [line], as_json)
    return 0


def _record(run: RunFolder, member: Organisation, number: int) -> RoundRecord:
    """The newest record of a round that admitted an organisation; raises UsageError when there is none."""
    found = [
        signed.value
        for signed in run.records()
        if signed.value.round == number and any(a.organisation == member.address for a in signed.value.admitted)
    ]
    if not found:
        raise UsageError(f"round {number} of run {run.name} admitted no update of {member.name}")
    return found[-1]
