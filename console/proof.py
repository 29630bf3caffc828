"""`foedus proof`: that an organisation's update was admitted to one round, for anybody to check."""

from pathlib import Path
from typing import Annotated

import typer

from chain.ledger import open_ledger
from chain.participation import ParticipationProof
from console.options import JsonOption, RunArgument, StateOption, command_app, parse_file, state_of, writable_file
from console.roots import AddressOption, GenesisOption, Roots, judged
from console.views.tables import answer
from core.errors import IntegrityError, UsageError
from core.storage.blobs import write

app = command_app()


@app.command(epilog="Example: foedus proof --organisation medical --round 2 --out proof.json")
def proof(  # noqa: PLR0913, PLR0917 - one parameter an option
    run: RunArgument = "",
    organisation: Annotated[str, typer.Option(help="Whose update: a name or an address.")] = "",
    number: Annotated[int, typer.Option("--round", min=0, help="In which round.")] = 0,
    out: Annotated[Path | None, typer.Option(help="The file to write.")] = None,
    check: Annotated[Path | None, typer.Option(help="A proof to check instead; needs no run.")] = None,
    genesis: GenesisOption = "",
    address: AddressOption = "",
    chain: Annotated[str, typer.Option(help="Where to check it: embedded, anvil or an RPC URL.")] = "embedded",
    state: StateOption = None,
    as_json: JsonOption = False,
) -> int:
    """Prove that an organisation took part in a round, or check such a proof against the chain."""
    folder = state_of(state)
    if check is not None:
        return _check(check, chain, Roots(genesis, address, folder), as_json)
    if not (organisation and number and out):
        raise UsageError("expected --organisation NAME, --round N and --out FILE, or --check FILE, got not all of them")
    found = folder.existing(run)
    member = found.genesis.named(organisation)
    admitting = [
        signed.value
        for signed in found.records()
        if signed.value.round == number and any(a.organisation == member.address for a in signed.value.admitted)
    ]
    if not admitting:
        raise UsageError(f"run {found.name}: expected an update of {member.name} in round {number}, got none admitted")
    newest = admitting[-1]  # a round may be closed again in a later generation
    made = ParticipationProof.of(newest, found.salts(newest), member.address, found.genesis.header)
    path = writable_file(out)
    write(path, made.to_json())
    result = {"run": found.name, "organisation": member.name, "round": number, "path": str(path)}
    answer(result, [f"Proof    {path}"], as_json=as_json)
    return 0


def _check(path: Path, chain: str, roots: Roots, as_json: bool) -> int:
    held = parse_file("proof", path, "a file of `foedus proof`", ParticipationProof.from_json)
    manifest = held.signed.value
    claim = {"organisation": manifest.organisation, "genesis": manifest.genesis, "round": manifest.round}
    contract = held.federation.chain.contract
    try:
        anchor = held.check_on_chain(open_ledger(chain, roots.state.folder, None, contract))
    except IntegrityError as error:
        result = {"ok": False, "consistent": False, "failures": [str(error)], **claim}
        answer(result, [f"The proof does not hold: {error}"], as_json=as_json)
        return 1
    failures = roots.failures(held.federation)
    where = {"contract": contract, "transaction": anchor.transaction, "block": anchor.block}
    line = f"{manifest.organisation} took part in round {manifest.round}: transaction {anchor.transaction}"
    if failures:
        line = f"The proof is consistent in itself; {failures[0]}"
    answer(judged(failures, claim | where), [line], as_json=as_json)
    return 1 if failures else 0
