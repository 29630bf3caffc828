"""The command line: the commands by name, and what becomes of an error.

Progress and logs go to stderr, results to stdout; with --json, stdout is one JSON object. `console/NAME.py` holds the
command NAME, as a Typer named `app`.
"""

import signal
import sys
from collections import UserDict
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any

import click
import typer
from typer.core import TyperGroup

from core.errors import FoedusError
from core.escape import redacted, visible

_INTERRUPTED = 128 + signal.SIGINT
SUMMARIES = {
    "run": "Run one federation, in simulation or on a deployment.",
    "sweep": "Run a grid or a search of settings, one run each, and name the best.",
    "status": "Show the rounds, participants, losses and digests of a run.",
    "witness": "Check, as an organisation, every round that its coordinator has shown.",
    "credits": "Show what organisations earned, and claim it on the public chain.",
    "verify": "Check everything that a run recorded, from its files and the chain.",
    "proof": "Prove that an organisation took part in a round, or check such a proof.",
    "evaluate": "Compare the base with the served model, on every data set.",
    "export": "Write the adapter as PEFT and vLLM load it, with its papers, signed.",
    "dossier": "Write what is known of a run for those who are responsible for it.",
    "attribute": "Trace every token of an answer to the organisations that taught it.",
    "chat": "Talk to the model; every token has the colour of the organisation that taught it.",
    "serve": "Serve the web console and an OpenAI-compatible endpoint on 127.0.0.1.",
    "calibrate": "Fit the weights of verdicts on records that organisations have published, and sign them.",
    "evidence": "Check the evidence of a verdict.",
    "approve": "List the updates that a site's policy holds for a person, and let one go or keep it.",
    "request": "Ask, as an organisation, that it or some of its records be erased.",
    "forget": "Erase an organisation, or some of its records, from a run.",
    "check": "Check an erasure certificate against the run's artifacts and the chain.",
    "chain": "Start, stop and inspect a development chain; deploy the contracts.",
    "keys": "Make or show an organisation's key.",
    "deploy": "Make a deployment's folders and kits; admit organisations; try their nodes.",
    "doctor": "Say what is wrong, and what to do about it.",
    "join": "Make an organisation's keys and folders from a kit, and the request that goes back to its coordinator.",
    "node": "Run an organisation's node of a deployment.",
    "signer": "Hold an organisation's key and sign for its node.",
    "coordinator": "Run a deployment's SuperLink behind nginx.",
    "members": "Let organisations join and leave a run; register them on the chain.",
    "prune": "Remove what of a run can be computed again: the aggregates of its older rounds.",
    "backup": "Copy a state, coordinator, node or signer folder while it is used.",
    "restore": "Put a backup back, and check every byte of it.",
    "schema": "Print the JSON Schema (2020-12) of what a command prints with --json.",
    "completion": "Print the script that has a shell complete commands, options and run ids.",
}
"""Every command and its line in `foedus --help`, which would take seconds if it imported them all."""


class _Modules(UserDict[str, click.Command]):
    """The commands by name; a command's module is imported when it is asked for."""

    def __iter__(self) -> Iterator[str]:
        return iter(SUMMARIES)

    def __len__(self) -> int:
        return len(SUMMARIES)

    def __contains__(self, name: object) -> bool:
        return name in SUMMARIES

    def __missing__(self, name: str) -> click.Command:
        if name not in SUMMARIES:
            raise KeyError(name)
        command = typer.main.get_command(import_module(f"console.{name}").app)
        command.name = name
        self.data[name] = command
        return command


class _Foedus(TyperGroup):
    """`foedus`: its help needs no command's module."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = _Modules()

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(SUMMARIES)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(SUMMARIES.items()))


app = typer.Typer(
    name="foedus",
    cls=_Foedus,
    help="Federated QLoRA fine-tuning with signed updates and a public record.",
    epilog="Example: foedus run, then foedus verify",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"foedus {version('foedus')}\n")
        raise typer.Exit


@app.callback()
def _foedus(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Make `app` a group although no command is registered with it."""


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command with its full name, those of a group as "group name"; imports them all."""
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined] # it is a group
        inner = getattr(command, "commands", {})
        yield from ((f"{name} {sub}", inner[sub]) for sub in inner)
        if not inner:
            yield name, command


def run_command(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code; every error but a bug of ours becomes one line."""
    try:
        code = int(app(arguments, prog_name="foedus", standalone_mode=False) or 0)
        # What typer makes of Ctrl-C, without a word.
        return _fail("interrupted", code) if code == _INTERRUPTED else code
    except FoedusError as error:
        return _fail(str(error), error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        return _fail(_advised(error), error.exit_code)
    except OSError as error:  # a full disk, a folder that cannot be read
        return _fail(f"{error.filename or type(error).__name__}: {error.strerror or error}", 1)
    except (typer.Abort, KeyboardInterrupt):
        return _fail("interrupted", _INTERRUPTED)


def _advised(error: click.ClickException) -> str:
    """What click says, and what to do; of `foedus run` every setting has a name, and few have an option."""
    if isinstance(error, click.NoSuchOption) and error.ctx and error.ctx.command.name == "run":
        from core.config import RunConfig  # noqa: PLC0415 - a command that is right need not wait for it

        if (name := error.option_name.removeprefix("--")) in RunConfig().to_flat():
            return f"expected --set {name}=VALUE, since this setting has no option, got {error.option_name}"
    return f"{error.format_message()} See --help."


def _fail(message: str, code: int) -> int:
    # A message may quote a file or an organisation: it must stay one line, and must not steer the terminal.
    sys.stderr.write(f"foedus: {redacted(visible(' '.join(message.split())))}\n")
    return code
