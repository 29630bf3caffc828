"""`foedus verify`: the audit of a run by its members, or from outside by its chain and store."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from chain.audit.outside import verify_from_outside
from chain.audit.reading import spare_processors
from chain.audit.report import AuditReport
from chain.audit.run import verify_on_chain
from console.options import (
    JsonOption,
    ReaderKeyOption,
    RunArgument,
    RunChainOption,
    StateOption,
    command_app,
    contract_of,
    readable_run,
    state_of,
)
from console.settings import absolute, saved
from console.views.failures import listed
from console.views.report import origin_lines, origin_of
from console.views.tables import answer, table
from core import keys
from core.config import RunConfig
from core.errors import FoedusError, UsageError
from core.model_selection import Measures
from core.storage.run_folder import RunFolder

app = command_app()


@app.command(epilog="Example: foedus verify --json")
def verify(  # noqa: PLR0913, PLR0917 - one parameter an option
    run: RunArgument = "",
    chain: RunChainOption = None,
    private_chain: Annotated[str | None, typer.Option(help="The members' chain, likewise, or none.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Rounds not on the chain yet are failures too.")] = False,
    from_chain: Annotated[str | None, typer.Option(metavar="URL", help="Audit from outside, by this chain.")] = None,
    address: Annotated[str | None, typer.Option(help="From outside: the contract's address.")] = None,
    store: Annotated[str | None, typer.Option(help="From outside: folder or URL of the run's artifacts.")] = None,
    key: ReaderKeyOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> int:
    """Check everything that a run recorded, from its files and the chain."""
    if from_chain is not None:
        (name, report), origin = _from_outside(from_chain, address, store, key, private_chain or "none"), None
    else:
        folder = state_of(state)
        found = readable_run(folder, run, key)
        settings, name = saved(folder, found.name), found.name
        private = private_chain or settings.private
        report = verify_on_chain(
            found, chain or settings.chain, folder.folder, private=private, strict=strict,
            measures=_measures(found, settings), processes=spare_processors(),
        )  # fmt: skip
        origin = origin_of(found) if report.checked.get("genesis") else None
    plural = "" if report.recomputed == 1 else "s"
    rounds = f"{report.recomputed} round{plural} recomputed, {report.attested} attested"
    verdict = f"does not hold: {report.failures[0]}" if report.failures else f"holds: {rounds}"
    # The line above says the rounds already, unless it has to name a failure instead.
    title = f"Checked; {rounds}" if report.failures else "Checked"
    checked = table(title, ("what", "count"), report.checked.items(), numbers=("count",))
    lines = [f"Run {name} {verdict}", *origin_lines(origin), *listed(report.failures), checked]
    answer({"run": name, **report.to_dict(), "origin": origin}, lines, as_json=as_json)
    return 0 if report.ok else 1


def _measures(run: RunFolder, settings: RunConfig) -> Measures | None:
    """What measures updates and rounds again; None where nothing hangs on that, or base or data are not here."""
    with suppress(FoedusError):
        if run.genesis.robust.rule == "validation" or run.genesis.compares_rounds:
            from server_app.measuring import measuring_again  # noqa: PLC0415 - the base model's libraries

            return measuring_again(run, settings)
    return None


def _from_outside(
    url: str, contract: str | None, store: str | None, key: Path | None, private: str
) -> tuple[str, AuditReport]:
    if not contract or not store or not key:
        missing = next(n for n, v in (("--address", contract), ("--store", store), ("--key", key)) if not v)
        raise UsageError(f"--from-chain: expected --address, --store and --key with it, got no {missing}")
    own = keys.read(key.expanduser())
    return verify_from_outside(url, contract_of(contract), str(absolute("store", store)), own, private=private)
