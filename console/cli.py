"""The command line. Progress and logs go to stderr, results to stdout; with --json, stdout is one JSON object.

Every command is a thin function over the package that does its work; here they get their names.
"""

import sys

import click
import typer

from console import (
    adapters,
    audit,
    chains,
    claims,
    evidence,
    federation,
    keyring,
    members,
    proof,
    provenance,
    unlearning,
)
from core.errors import FoedusError

app = typer.Typer(
    name="foedus",
    help="Federated QLoRA fine-tuning with signed updates and a public record.",
    epilog="Example: foedus run, then foedus verify",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(epilog="Example: foedus run --data ./data --rounds 5 --json")(federation.run)
app.command(epilog="Example: foedus status --json")(federation.status)
app.command(epilog="Example: foedus credits --organisation medical --claim")(claims.credits)
app.command(epilog="Example: foedus verify --json")(audit.verify)
app.command(epilog="Example: foedus proof --organisation medical --round 2 --out proof.json")(proof.proof)
app.command(epilog="Example: foedus evaluate --data ./data --limit 0")(adapters.evaluate)
app.command(epilog="Example: foedus export --out ./adapter")(adapters.export)
app.command(epilog='Example: foedus attribute --prompt "How many tablets?" --html trace.html')(provenance.attribute)
app.command(epilog="Example: foedus chat --method direct-logit")(provenance.chat)
app.command(epilog="Example: foedus evidence evidence.json --chain embedded")(evidence.evidence)
app.command(epilog="Example: foedus forget --organisation coding --method replay")(unlearning.forget)
app.command(epilog="Example: foedus check certificate.json --json")(unlearning.check)
app.add_typer(chains.app, name="chain")
app.add_typer(keyring.app, name="keys")
app.add_typer(members.app, name="members")


def run_command(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code; what is not a bug of ours becomes one line."""
    try:
        return int(app(arguments, standalone_mode=False) or 0)
    except FoedusError as error:
        return _fail(str(error), error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        return _fail(f"{error.format_message()} See --help.", error.exit_code)
    except OSError as error:  # a full disk, a folder that cannot be read
        return _fail(f"{error.filename or type(error).__name__}: {error.strerror or error}", 1)
    except (typer.Abort, KeyboardInterrupt):
        return _fail("interrupted", 130)


def _fail(message: str, code: int) -> int:
    sys.stderr.write(f"foedus: {' '.join(message.split())}\n")
    return code
