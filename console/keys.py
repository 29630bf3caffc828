"""`foedus keys`: an organisation's key file. Address and public key are shown; the secret never is.

A key is encrypted under a passphrase with --encrypt. The passphrase is asked for on the terminal, or read from a file.
"""

import os
from pathlib import Path
from typing import Annotated

import typer

from console.options import JsonOption, command_app
from console.views.tables import answer
from core import keys
from core.keys import Key

app = command_app(help="An organisation's key.", epilog="Example: foedus keys new", no_args_is_help=True)

FileArgument = Annotated[
    Path | None, typer.Argument(metavar="[FILE]", help="Key file [$FOEDUS_KEY, else ~/.config/foedus/key].")
]
EncryptOption = Annotated[bool, typer.Option("--encrypt", help="Encrypt it: an Ethereum keystore, version 3.")]
PassphraseOption = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file", help=f"File of the passphrase [${keys.KEYSTORE_VARIABLE}, else it is asked for]."
    ),
]


@app.command(epilog="Example: foedus keys new ~/keys/hospital --encrypt")
def new(
    file: FileArgument = None,
    encrypt: EncryptOption = False,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key: a file of mode 0600 outside any checkout."""
    path = _path(file)
    passphrase = ""
    if encrypt and (given := passphrase_file or os.environ.get(keys.KEYSTORE_VARIABLE)):
        passphrase = keys.read_passphrase(Path(given).expanduser())
    elif encrypt:
        passphrase = typer.prompt("Passphrase", hide_input=True, confirmation_prompt=True, err=True)
    _answer(path, keys.create(path, passphrase), as_json)


@app.command(epilog="Example: foedus keys show ~/keys/hospital --json")
def show(file: FileArgument = None, passphrase_file: PassphraseOption = None, as_json: JsonOption = False) -> None:
    """Show the address and the public key that belong to a key."""
    path = _path(file)
    _answer(path, keys.read(path, passphrase_file.expanduser() if passphrase_file else None), as_json)


def _path(option: Path | None) -> Path:
    return Path(option or os.environ.get("FOEDUS_KEY") or "~/.config/foedus/key").expanduser().absolute()


def _answer(path: Path, key: Key, as_json: bool) -> None:
    lines = [f"Address  {key.address}", f"Public   {key.public}", f"File     {path}"]
    answer({"address": key.address, "public_key": key.public, "file": str(path)}, lines, as_json=as_json)
