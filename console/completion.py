"""`foedus completion`: the script with which a shell completes commands, options and run ids."""

import sys
from enum import StrEnum
from typing import Annotated

import click
import typer
from click.shell_completion import get_completion_class
from typer._completion_classes import completion_init

from console.options import command_app

app = command_app()


class Shell(StrEnum):
    """The shells that are known."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@app.command(epilog="Example: foedus completion bash >> ~/.bashrc")
def completion(shell: Annotated[Shell, typer.Argument(help="bash, zsh or fish.")]) -> None:
    """Print the script that has a shell complete commands, options and run ids, to be evaluated when it starts."""
    completion_init()  # typer's own scripts ask in the form that its commands answer
    script = get_completion_class(shell.value)
    if script is None:
        raise click.UsageError(f"expected a shell that typer knows, got {shell.value}")
    sys.stdout.write(script(click.Command("foedus"), {}, "foedus", "_FOEDUS_COMPLETE").source() + "\n")
