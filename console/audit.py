"""`foedus verify`: the audits of chain/audit/run.py and chain/audit/outside.py for the command line."""

from pathlib import Path
from typing import Annotated

import typer

from chain.audit.outside import verify_from_outside
from chain.audit.run import AuditReport, verify_on_chain
from console.options import JsonOption, KeyOption, RunArgument, StateOption, answer, contract_of, run_of, state_of
from console.settings import absolute, saved
from core import keys
from core.errors import UsageError


def verify(  # noqa: PLR0913, PLR0917 - one parameter an option
    run: RunArgument = "",
    chain: Annotated[str | None, typer.Option(help="embedded, anvil or an RPC URL [the run's own].")] = None,
    private_chain: Annotated[str | None, typer.Option(help="The members' chain, likewise, or none.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Rounds not on the chain yet are failures too.")] = False,
    from_chain: Annotated[str | None, typer.Option(metavar="URL", help="Audit from outside, by this chain.")] = None,
    address: Annotated[str | None, typer.Option(help="From outside: the contract's address.")] = None,
    store: Annotated[str | None, typer.Option(help="From outside: folder or URL of the run's artifacts.")] = None,
    key: KeyOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> int:
    """Check everything that a run recorded, from its files and the chain."""
    if from_chain is not None:
        name, report = _from_outside(from_chain, address, store, key, private_chain or "none")
    else:
        folder = state_of(state)
        found = run_of(folder, run, key)
        settings, name = saved(folder, found.name), found.name
        chains = chain or settings.chain, private_chain or settings.private
        report = verify_on_chain(found, chains[0], folder.folder, private=chains[1], strict=strict)
    answer({"run": name, **report.to_dict()}, _lines(name, report), as_json)
    return 0 if report.ok else 1


def _from_outside(
    url: str, contract: str | None, store: str | None, key: Path | None, private: str
) -> tuple[str, AuditReport]:
    wanted = {"--address": contract, "--store": store, "--key": key}
    if missing := [option for option, value in wanted.items() if not value]:
        raise UsageError(f"--from-chain got no {missing[0]}; an auditor has {', '.join(wanted)}")
    at = contract_of(str(contract))
    own = keys.read(Path(str(key)).expanduser())
    return verify_from_outside(url, at, str(absolute("store", store)), own, private=private)


def _lines(run: str, report: AuditReport) -> list[str]:
    checked = ", ".join(f"{count} {what}" for what, count in report.checked.items())
    rounds = f"{report.recomputed} rounds recomputed, {report.attested} attested"
    if report.ok:
        return [f"Run {run} holds: {rounds}", f"Checked  {checked}"]
    first, *others = report.failures
    more = [f"and {len(others)} more; --json lists them all"] if others else []
    return [f"Run {run} does not hold: {first}", *more, f"Checked  {checked}; {rounds}"]
