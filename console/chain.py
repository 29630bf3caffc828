"""`foedus chain`: the development chains of a state folder, and the contracts on any chain."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from chain import control
from chain.deployment import AddressBook
from chain.devnet.accounts import administrator
from chain.nodes import connect
from console.options import JsonOption, StateOption, command_app, state_of
from console.views.tables import answer, table
from core import keys
from core.errors import UsageError
from core.escape import redacted

app = command_app(
    help="A development chain, and the contracts.", epilog="Example: foedus chain start", no_args_is_help=True
)

ChainOption = Annotated[str, typer.Option("--chain", help="embedded or anvil.")]

_CONTRACTS = {"public": "PublicLedger", "private": "PrivateLedger"}


@app.command(epilog="Example: foedus chain start --port 8545 --json")
def start(
    chain: ChainOption = "embedded",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on the loopback; 0 is any that is free.")] = 0,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start a development chain, served as JSON-RPC on the loopback."""
    folder = state_of(state).folder
    _answer(folder, control.start(chain, folder, port), as_json)


@app.command(epilog="Example: foedus chain status --chain anvil")
def status(chain: ChainOption = "embedded", state: StateOption = None, as_json: JsonOption = False) -> None:
    """Say whether a development chain runs, where, and which contracts it holds."""
    folder = state_of(state).folder
    _answer(folder, control.status(chain, folder), as_json)


@app.command(epilog="Example: foedus chain stop")
def stop(chain: ChainOption = "embedded", state: StateOption = None, as_json: JsonOption = False) -> None:
    """End a development chain; its state stays, and the next request starts it again."""
    stopped = control.stop(chain, state_of(state).folder)
    line = f"{chain} {'has ended' if stopped else 'did not run'}"
    answer({"chain": chain, "stopped": stopped}, [line], as_json=as_json)


@app.command(epilog="Example: foedus chain deploy --chain http://127.0.0.1:8545 --key ~/keys/coordinator")
def deploy(
    chain: Annotated[str, typer.Option("--chain", help="embedded, anvil or an RPC URL.")] = "embedded",
    key: Annotated[
        Path | None, typer.Option(help="Key file of the coordinator, who pays on a chain behind a URL.")
    ] = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put the contracts on a chain, unless they are there."""
    if key is None and chain not in ("embedded", "anvil"):
        raise UsageError(f"deploying on {chain}: expected --key, the key file of an account with funds, got none")
    folder = state_of(state).folder
    addresses = control.deploy(chain, folder, keys.read(key.expanduser()) if key else administrator())
    url = control.status(chain, folder).urls["public"] if chain in ("embedded", "anvil") else redacted(chain)
    chain = redacted(chain)
    parts = [table(f"Contracts on {chain}", ("contract", "address"), addresses.items())]
    answer({"chain": chain, "url": url, "addresses": dict(addresses)}, parts, as_json=as_json)


def _answer(state: Path, found: control.ChainStatus, as_json: bool) -> None:
    """Say where the chains of a status answer, and the contracts that the state folder knows on them."""
    books = {_CONTRACTS[side]: AddressBook(state, connect(found.chain, state, side)) for side in found.urls}
    addresses = {name: address for name, book in books.items() if (address := book.find(name))}
    result: dict[str, Any] = {
        "chain": found.chain,
        "running": found.running,
        "url": found.urls.get("public"),
        "urls": dict(found.urls),
        "addresses": addresses,
    }
    parts: list[RenderableType] = [f"{found.chain} does not run: `foedus chain start`"]
    if found.urls:
        rows = ((side, url, _CONTRACTS[side], addresses.get(_CONTRACTS[side])) for side, url in found.urls.items())
        parts = [table(f"Chain {found.chain}", ("chain", "url", "contract", "address"), rows)]
    answer(result, parts, as_json=as_json)
