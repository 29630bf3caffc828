"""`foedus chain`: the development chains of a state folder, and the contracts on any chain."""

from pathlib import Path
from typing import Annotated, Any

import typer

from chain import control
from chain.deployment import AddressBook
from chain.devnet.accounts import administrator
from chain.nodes import connect
from console.options import JsonOption, StateOption, answer, state_of
from core import keys
from core.canonical import Address
from core.errors import UsageError

app = typer.Typer(
    help="A development chain, and the contracts.", epilog="Example: foedus chain start", no_args_is_help=True
)

ChainOption = Annotated[str, typer.Option("--chain", help="embedded or anvil.")]
AnyChainOption = Annotated[str, typer.Option("--chain", help="embedded, anvil or an RPC URL.")]
PortOption = Annotated[int, typer.Option(min=0, max=65535, help="Port on the loopback; 0 is any that is free.")]
KeyOption = Annotated[Path | None, typer.Option(help="Key file of the coordinator, who pays on a chain behind a URL.")]

_CONTRACTS = {"public": "PublicLedger", "private": "PrivateLedger"}


@app.command(epilog="Example: foedus chain start --port 8545 --json")
def start(
    chain: ChainOption = "embedded", port: PortOption = 0, state: StateOption = None, as_json: JsonOption = False
) -> None:
    """Start a development chain, served as JSON-RPC on the loopback."""
    folder = state_of(state).folder
    _show(folder, control.start(chain, folder, port), as_json)


@app.command(epilog="Example: foedus chain status --chain anvil")
def status(chain: ChainOption = "embedded", state: StateOption = None, as_json: JsonOption = False) -> None:
    """Say whether a development chain runs, where, and which contracts it holds."""
    folder = state_of(state).folder
    _show(folder, control.status(chain, folder), as_json)


@app.command(epilog="Example: foedus chain stop")
def stop(chain: ChainOption = "embedded", state: StateOption = None, as_json: JsonOption = False) -> None:
    """End a development chain; what it holds stays, and the next request starts it again."""
    stopped = control.stop(chain, state_of(state).folder)
    answer({"chain": chain, "stopped": stopped}, [f"{chain} {'has ended' if stopped else 'did not run'}"], as_json)


@app.command(epilog="Example: foedus chain deploy --chain http://127.0.0.1:8545 --key ~/keys/coordinator")
def deploy(
    chain: AnyChainOption = "embedded",
    key: KeyOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put the contracts on a chain, unless they are there."""
    if key is None and chain not in ("embedded", "anvil"):
        raise UsageError(f"deploying on {chain} got no --key, the key file of an account with funds wanted")
    folder = state_of(state).folder
    addresses = control.deploy(chain, folder, keys.read(key.expanduser()) if key else administrator())
    answer({"chain": chain, "addresses": dict(addresses)}, _pairs(addresses), as_json)


def _show(state: Path, found: control.ChainStatus, as_json: bool) -> None:
    addresses = _addresses(state, found)
    result: dict[str, Any] = {
        "chain": found.chain,
        "running": found.running,
        "url": found.urls.get("public"),
        "urls": dict(found.urls),
        "addresses": addresses,
    }
    lines = _pairs(found.urls) or [f"{found.chain} does not run: `foedus chain start`"]
    answer(result, lines + _pairs(addresses), as_json)


def _addresses(state: Path, found: control.ChainStatus) -> dict[str, Address]:
    """The contracts that the state folder knows on the chains that run."""
    books = {_CONTRACTS[side]: AddressBook(state, connect(found.chain, state, side)) for side in found.urls}
    return {name: address for name, book in books.items() if (address := book.find(name))}


def _pairs(values: Any) -> list[str]:
    return [f"{name:14} {value}" for name, value in values.items()]
