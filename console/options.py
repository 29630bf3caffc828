"""What the commands share: options, the state folder, and how a result is printed."""

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from core.canonical import Address, address
from core.errors import FormatError, IntegrityError, UsageError
from core.storage.run_folder import RunFolder
from core.storage.state_folder import State

StateOption = Annotated[Path | None, typer.Option("--state", help="State folder [$FOEDUS_HOME, else .foedus].")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
RunArgument = Annotated[str, typer.Argument(metavar="[RUN]", help="Run id; the newest without it.")]

KeyOption = Annotated[
    Path | None, typer.Option("--key", help="Key file of a reader [the coordinator's, as the run was started with].")
]


def state_of(option: Path | None) -> State:
    """The state folder of a command."""
    return State(Path(option or os.environ.get("FOEDUS_HOME") or ".foedus").expanduser().absolute())


def run_of(state: State, name: str, key: Path | None) -> RunFolder:
    """The run of this name, or the newest, and the key to read its artifacts with.

    Raises UsageError when there is no such run, or no key to one whose keys cannot be derived.
    """
    run = state.existing(name).read_with(key.expanduser().absolute() if key else None)
    with suppress(IntegrityError):  # a damaged genesis is for the command to name
        if run.key or all(member.derived for member in run.genesis.organisations):
            return run
        raise UsageError(f"run {run.name} is sealed: got no --key, the key file of one of its readers wanted")
    return run


def read_file(what: str, path: Path, wanted: str) -> bytes:
    """What a file holds; raises UsageError, with what was got and what was wanted, when it cannot be read."""
    try:
        return path.expanduser().read_bytes()
    except OSError as error:
        raise UsageError(f"{what} {path}: {error.strerror}, {wanted} wanted") from error


def contract_of(option: str) -> Address:
    """The contract that --address names; raises UsageError."""
    try:
        return address(option)
    except FormatError as error:
        raise UsageError(f"--address: {error}") from error


def print_json(value: Any) -> None:
    """One JSON object on stdout."""
    sys.stdout.write(json.dumps(value, allow_nan=False) + "\n")


def answer(result: dict[str, Any], lines: list[str], as_json: bool) -> None:
    """Print a result as one JSON object, or as lines for people."""
    if as_json:
        print_json(result)
    else:
        sys.stdout.write("".join(f"{line}\n" for line in lines))
