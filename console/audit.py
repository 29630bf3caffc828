"""`covenant verify`: the audit of chain/audit.py for the command line."""

from typing import Annotated

import typer

from chain.audit import AuditReport, verify_on_chain
from console.options import JsonOption, RunArgument, StateOption, answer, state_of
from console.settings import saved


def verify(
    run: RunArgument = "",
    chain: Annotated[str | None, typer.Option(help="embedded, anvil or an RPC URL [the run's own].")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Rounds not on the chain yet are failures too.")] = False,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> int:
    """Check everything that a run recorded, from its files and the chain."""
    folder = state_of(state)
    found = folder.existing(run)
    report = verify_on_chain(found, chain or saved(folder, found.name).chain, folder.folder, strict=strict)
    answer({"run": found.name, **report.to_dict()}, _lines(found.name, report), as_json)
    return 0 if report.ok else 1


def _lines(run: str, report: AuditReport) -> list[str]:
    checked = ", ".join(f"{count} {what}" for what, count in report.checked.items())
    rounds = f"{report.recomputed} rounds recomputed, {report.attested} attested"
    if report.ok:
        return [f"Run {run} holds: {rounds}", f"Checked  {checked}"]
    first, *others = report.failures
    more = [f"and {len(others)} more; --json lists them all"] if others else []
    return [f"Run {run} does not hold: {first}", *more, f"Checked  {checked}; {rounds}"]
