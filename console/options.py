"""Options that commands share, and the things they name: the state folder, a run, a file, a contract."""

import glob
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, TypeVar

import click
import typer
from typer.core import TyperArgument, TyperCommand
from typer.models import CommandFunctionType

from console.views.logs import LogFormat
from core.canonical import Address, address, from_json
from core.errors import FormatError, IntegrityError, UsageError
from core.genesis import Genesis
from core.storage.blobs import read
from core.storage.run_folder import RunFolder
from core.storage.state_folder import State

T = TypeVar("T")

StateOption = Annotated[Path | None, typer.Option("--state", help="State folder [$FOEDUS_HOME, else .foedus].")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def run_names(incomplete: str) -> list[str]:
    """The run ids of the state folder that begin so, for a shell that completes one."""
    return sorted(path.name for path in state_of(None).folder.glob(f"runs/{glob.escape(incomplete)}*"))


RunArgument = Annotated[
    str, typer.Argument(metavar="[RUN]", help="Run id; the newest without it.", autocompletion=run_names)
]
ReaderKeyOption = Annotated[
    Path | None, typer.Option("--key", help="Key file of a reader [the coordinator's, as the run was started with].")
]
BaseOption = Annotated[
    str, typer.Option("--base", help="The base model's folder or name, where it is not where the run had it.")
]
SigningKeyOption = Annotated[
    Path | None,
    typer.Option("--signing-key", help="PEM key on P-256 that signs [~/.config/foedus/signing.pem, made if missing]."),
]
BaseKeyOption = Annotated[
    Path | None, typer.Option(help="Public key (PEM) by which the base must be signed, in its model.sig.")
]
FederationOption = Annotated[
    str, typer.Option("--federation", metavar="NAME", help="A coordinator's folder, or its name in /etc/foedus.")
]
LogFormatOption = Annotated[LogFormat, typer.Option(help="How lines on stderr look: text, or one JSON object each.")]
LogFileOption = Annotated[
    Path | None, typer.Option(help="Write them to this file instead, rotated at 10 MiB; five older ones are kept.")
]
RunChainOption = Annotated[str | None, typer.Option("--chain", help="embedded, anvil or an RPC URL [the run's own].")]


class _Argument(TyperArgument):
    """An argument that keeps its help: typer 0.20 sets it before click's own constructor, since 8.4, clears it."""

    def __init__(self, *, help: str | None = None, **settings: Any) -> None:
        super().__init__(help=help, **settings)
        self.help = help


# typer makes its parameters of the class that stands there; Flower pins typer, and huggingface-hub click.
vars(typer.main)["TyperArgument"] = _Argument
# With rich installed it escapes "[required]" for rich's markup, which this help does not use.
vars(typer.core)["HAS_RICH"] = False


class _Command(TyperCommand):
    def format_arguments(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write nothing: Typer lists the arguments with the options, and Click from 8.5 on would do so again."""


class _App(typer.Typer):
    def command(self, name: str | None = None, **settings: Any) -> Callable[[CommandFunctionType], CommandFunctionType]:
        return super().command(name, **{"cls": _Command} | settings)


def command_app(**settings: Any) -> typer.Typer:
    """A Typer for one command, or for a group of them; its help is plain text."""
    return _App(**settings, add_completion=False, rich_markup_mode=None)


def state_of(option: Path | None) -> State:
    """The state folder of a command."""
    return State.at(Path(option or os.environ.get("FOEDUS_HOME") or ".foedus").expanduser().absolute())


def command_for(words: str, state: State, run: str) -> str:
    """A command on a run, with its state folder where no command would look in it."""
    place = "" if state.folder == state_of(None).folder else f" --state {state.folder}"
    return f"foedus {words} {run}{place}"


def resume_command(state: State, run: str) -> str:
    """The command that goes on with a run, on its coordinator where it is a deployment's; first with its erasure."""
    found = state.run(run)
    if begun := found.unfinished():
        asked = begun.value.request.value
        member = found.genesis.named(asked.organisation)
        simulated = f"--organisation {member.name} --method {asked.method}{' --records FILE' if asked.count else ''}"
        return command_for(f"forget {simulated if member.derived else '--request FILE'}", state, run)
    if ((deployment := state.folder.parent) / "federation.toml").is_file():
        return f"foedus run --federation {deployment} --resume {run}"
    return command_for("run --resume", state, run)


def readable_run(state: State, name: str, key: Path | None) -> RunFolder:
    """The run of this name, or the newest, with the key to read its artifacts.

    Raises UsageError when there is no such run, or no key to one whose keys cannot be derived.
    """
    run = state.existing(name).read_with(key.expanduser().absolute() if key else None)
    with suppress(IntegrityError):  # a damaged genesis is for the command to name
        if run.key or all(member.derived for member in run.genesis.organisations):
            return run
        raise UsageError(f"run {run.name} is sealed: expected --key, the key file of one of its readers, got none")
    return run


def federation_of(state: State, run: str) -> Genesis:
    """The genesis of a run that lies here, or that an organisation here agreed to; the newest when `run` is empty.

    Raises UsageError when there is none.
    """
    known = {found.genesis.run: found.genesis for found in state.runs()}
    for path in sorted(state.agreed_genesis().glob("*.json"), key=lambda path: path.stat().st_mtime):
        genesis = Genesis.from_message(from_json(path.read_bytes()))
        known[genesis.run] = genesis
    if not known or (run and run not in known):
        raise UsageError(f"expected one of the federations {', '.join(known) or 'none'}, got {run or 'none'}")
    return known[run or list(known)[-1]]


def read_file(what: str, path: Path, expected: str, most: int = 16 * 2**20) -> bytes:
    """A file's bytes, at most `most`; raises UsageError when it has more or cannot be read."""
    try:
        return read(path.expanduser(), most)
    except OSError as error:
        raise UsageError(f"{what} {path}: expected {expected}, got {error.strerror}") from error
    except FormatError as error:
        raise UsageError(f"{what} {path}: {error}") from error


def parse_file(what: str, path: Path, expected: str, parse: Callable[[bytes], T]) -> T:
    """What a file holds; raises UsageError as `read_file`, and FormatError, which names the file."""
    data = read_file(what, path, expected)
    try:
        return parse(data)
    except FormatError as error:
        raise FormatError(f"{what} {path}: {error}") from error


def writable_file(path: Path, *others: Path | None) -> Path:
    """The absolute path of a file to write; raises UsageError, before anything is computed, when it cannot be one.

    `others`: files that the command reads, or writes as well.
    """
    path = path.expanduser().absolute()
    if not path.parent.is_dir() or path.is_dir():
        raise UsageError(f"{path}: expected a file to write, got {'a folder' if path.is_dir() else 'no such folder'}")
    if path.resolve() in (other.expanduser().resolve() for other in others if other):
        raise UsageError(f"{path}: expected a file of its own to write, got one that another option names, too")
    return path


def contract_of(option: str) -> Address:
    """The contract that --address names; raises UsageError."""
    try:
        return address(option)
    except FormatError as error:
        raise UsageError(f"--address: {error}") from error
