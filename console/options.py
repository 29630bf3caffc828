"""What the commands share: options, the state folder, and how a result is printed."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from core.places import State

StateOption = Annotated[Path | None, typer.Option("--state", help="State folder [$COVENANT_HOME, else .covenant].")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
RunArgument = Annotated[str, typer.Argument(metavar="[RUN]", help="Run id; the newest without it.")]


def state_of(option: Path | None) -> State:
    """The state folder of a command."""
    return State(Path(option or os.environ.get("COVENANT_HOME") or ".covenant").expanduser().absolute())


def print_json(value: Any) -> None:
    """One JSON object on stdout."""
    sys.stdout.write(json.dumps(value, allow_nan=False) + "\n")


def answer(result: dict[str, Any], lines: list[str], as_json: bool) -> None:
    """Print a result as one JSON object, or as lines for people."""
    if as_json:
        print_json(result)
    else:
        sys.stdout.write("".join(f"{line}\n" for line in lines))
