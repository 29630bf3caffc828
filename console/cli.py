"""The command line. Progress and logs go to stderr, results to stdout; with --json, stdout is one JSON object."""

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from console.progress import watching
from console.report import report, show
from console.settings import build, resumed
from console.simulation import run_simulation
from core.config import RunConfig
from core.errors import CovenantError
from core.places import State, new_run_id

app = typer.Typer(
    name="covenant",
    help="Federated QLoRA fine-tuning with signed updates and a public record.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

StateOption = Annotated[Path | None, typer.Option("--state", help="State folder [$COVENANT_HOME, else .covenant].")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
RunArgument = Annotated[str, typer.Argument(metavar="[RUN]", help="Run id; the newest without it.")]

NODES = 2
"""Flower nodes of a simulation; each hosts every second organisation."""


def run_command() -> int:
    """Run the command line and return its exit code; errors of ours become one line."""
    try:
        return int(app(standalone_mode=False) or 0)
    except CovenantError as error:
        sys.stderr.write(f"covenant: {error}\n")
        return error.exit_code
    except typer.Exit as error:
        return error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        sys.stderr.write("covenant: interrupted\n")
        return 130
