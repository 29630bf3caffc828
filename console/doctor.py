"""`foedus doctor`: what is wrong with a machine or a part of a deployment, and what to do about it."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from console.deployments.machine_checks import machine_checks
from console.options import JsonOption, StateOption, command_app, state_of
from console.views.progress import working
from console.views.tables import answer, table
from core.errors import UsageError

app = command_app()


@app.command(epilog="Example: foedus doctor /etc/foedus/clinics --json")
def doctor(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="[DIR]", help="Folder of a coordinator, node or signer; the machine and the state without it."
        ),
    ] = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> int:
    """Say what is wrong, and what to do about it; the exit status is 1 when something is."""
    if folder is None:
        found = list(machine_checks(state_of(state).folder))
    else:
        from console.deployments.part_checks import checks_of  # noqa: PLC0415 - Flower's messages, which take a while

        with working("looking"):
            found = list(checks_of(folder.expanduser().absolute()))
        if not found:
            files = "coordinator.toml, node.toml or signer.toml"
            raise UsageError(f"{folder}: expected a folder with {files}, got none of them")
    ok = all(one.ok for one in found)
    rows = [("ok", one.name, one.got, "") for one in found if one.ok]
    rows += [("WRONG", one.name, one.got, f"{one.expected}: {one.advice}") for one in found if not one.ok]
    headings = ("", "what", "found", "expected, and what to do")
    parts = [table("All is well" if ok else "Something is wrong", headings, rows)]
    answer({"ok": ok, "checks": [asdict(one) for one in found]}, parts, as_json=as_json)
    return 0 if ok else 1
