"""`foedus prune`: remove the aggregates of a run's older rounds, which its updates give again."""

from typing import Annotated

import typer

from chain.audit.run import verify_on_chain
from console.options import (
    JsonOption,
    ReaderKeyOption,
    RunArgument,
    RunChainOption,
    StateOption,
    command_app,
    readable_run,
    state_of,
)
from console.settings import saved
from console.views.progress import working
from console.views.tables import answer
from core.errors import IntegrityError
from core.storage.lock import locked
from core.storage.retention import FEWEST_KEPT, prunable

app = command_app()


@app.command(epilog="Example: foedus prune --keep 20 --dry-run")
def prune(
    run: RunArgument = "",
    keep: Annotated[int, typer.Option(help=f"Newest rounds of every lane that stay; {FEWEST_KEPT} or more.")] = 10,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")] = False,
    chain: RunChainOption = None,
    key: ReaderKeyOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove what of a run can be computed again: the aggregates of its older rounds.

    The run is verified first, and stays as verifiable as it was. Updates, records and salts are never removed.
    """
    folder = state_of(state)
    found = readable_run(folder, run, key)
    with locked(folder.lock(found.name)):  # nobody writes it meanwhile
        listed = prunable(found, keep)
        there = {name: size for name in sorted(listed) if (size := found.artifacts.size(name))}
        if not dry_run and there:
            with working(f"verifying {found.name}"):
                settings = saved(folder, found.name)
                url = chain or settings.chain
                report = verify_on_chain(found, url, folder.folder, private=settings.private)
            if report.failures:
                raise IntegrityError(f"expected a run that holds, got {report.failures[0]}: nothing was removed")
            found.prune(there)
    size = sum(there.values())
    did = "would go" if dry_run else "are gone"
    lines = [
        f"Run {found.name}: {len(there)} aggregates, {size / 2**20:,.1f} MiB, {did}",
        f"Their digests stand in {found.folder / 'pruned.json'}; foedus verify computes them again",
    ]
    removed = {"run": found.name, "removed": list(there), "bytes": size, "dry_run": dry_run}
    answer(removed, lines[: 1 if dry_run else 2], as_json=as_json)
