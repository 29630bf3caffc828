"""`foedus members`: who may take part in the federations of a contract, asked for, approved and ended."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from eth_utils.address import is_address, to_checksum_address

from chain.contract import BoundContract
from chain.deployment import bind
from chain.devnet.accounts import administrator
from chain.registry import MembershipRequest, Organisation, Registry, digest_of_node_key, request_membership
from console.options import JsonOption, StateOption, answer, read_file, state_of
from core import keys
from core.canonical import ZERO_DIGEST, Address
from core.errors import UsageError
from core.keys import Key

app = typer.Typer(
    help="Registration of organisations on the chain.",
    epilog="Example: foedus members show 0x…",
    no_args_is_help=True,
)

ChainOption = Annotated[str, typer.Option("--chain", help="embedded, anvil or an RPC URL.")]
ContractOption = Annotated[str | None, typer.Option("--address", help="The contract [the state folder's].")]
OrganisationArgument = Annotated[str, typer.Argument(metavar="ADDRESS", help="The organisation.")]
OwnKeyOption = Annotated[Path, typer.Option("--key", help="Key file of the organisation.")]
NodeKeyOption = Annotated[Path | None, typer.Option(help="Its SuperNode's public key, an OpenSSH file.")]
DaysOption = Annotated[int, typer.Option(min=1, help="Days until the request is worthless.")]
OutOption = Annotated[Path, typer.Option(help="Where the request is written.")]
RequestArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A signed request.")]
CoordinatorOption = Annotated[Path | None, typer.Option("--key", help="Key file of the coordinator.")]
AdministratorOption = Annotated[Path | None, typer.Option("--key", help="Key file of the contract's administrator.")]


@app.command(epilog="Example: foedus members request --key ~/keys/hospital --out request.json")
def request(  # noqa: PLR0913, PLR0917 - one parameter an option
    key: OwnKeyOption,
    out: OutOption,
    node_key: NodeKeyOption = None,
    days: DaysOption = 7,
    chain: ChainOption = "embedded",
    address: ContractOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sign an organisation's request to be registered, with its SuperNode's key in a deployment."""
    own, registry = keys.read(key.expanduser()), _registry(chain, state, address)
    digest = digest_of_node_key(node_key.expanduser()) if node_key else ZERO_DIGEST
    deadline = int(time.time()) + days * 86_400
    signed = request_membership(own, registry.domain, digest, registry.nonce(own.address), deadline)
    out.write_bytes(signed.to_json())
    answer({"organisation": own.address, "file": str(out)}, [f"Request of {own.address} in {out}"], as_json)


@app.command(epilog="Example: foedus members approve request.json --key ~/keys/coordinator")
def approve(
    file: RequestArgument,
    key: CoordinatorOption = None,
    chain: ChainOption = "embedded",
    address: ContractOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Register the organisation that signed a request."""
    signed = MembershipRequest.from_json(read_file("got", file, "a signed request"))
    coordinator = _key(key, chain, "coordinator")
    if key is None:  # on a development chain the administrator makes itself a coordinator
        bind("PublicLedger", chain, state_of(state).folder, coordinator, contract=_contract(address))
    _show(signed.organisation, _registry(chain, state, address, coordinator).register(signed), as_json)


@app.command(epilog="Example: foedus members revoke 0x… --key ~/keys/administrator")
def revoke(
    organisation: OrganisationArgument,
    key: AdministratorOption = None,
    chain: ChainOption = "embedded",
    address: ContractOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """End an organisation's registration for good, from the next round on."""
    registry = _registry(chain, state, address, _key(key, chain, "administrator"))
    _show(wanted := _organisation(organisation), registry.revoke(wanted), as_json)


@app.command(epilog="Example: foedus members show 0x… --json")
def show(
    organisation: OrganisationArgument,
    chain: ChainOption = "embedded",
    address: ContractOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether an organisation is registered, with which node key, and whether that has ended."""
    wanted = _organisation(organisation)
    _show(wanted, _registry(chain, state, address).read(wanted), as_json)


def _registry(chain: str, state: Path | None, contract: str | None, key: Key | None = None) -> Registry:
    bound = bind("PublicLedger", chain, state_of(state).folder, None, contract=_contract(contract))
    return Registry(BoundContract(bound.node, "PublicLedger", bound.address, key))


def _organisation(text: str) -> Address:
    if not is_address(text):
        raise UsageError(f"got {text!r}, the address of an organisation wanted")
    return Address(to_checksum_address(text))


def _contract(option: str | None) -> Address | None:
    return Address(option) if option else None


def _key(option: Path | None, chain: str, whose: str) -> Key:
    if option:
        return keys.read(option.expanduser())
    if chain not in ("embedded", "anvil"):
        raise UsageError(f"got no --key, the key file of the {whose} on {chain} wanted")
    return administrator()


def _show(organisation: str, found: Organisation | None, as_json: bool) -> None:
    result: dict[str, Any] = {
        "organisation": organisation,
        "registered": bool(found and not found.revoked_at),
        "node_key": found.node_key if found and found.node_key != ZERO_DIGEST else None,
        "registered_at": found.registered_at if found else None,
        "revoked_at": (found.revoked_at or None) if found else None,
    }
    state = "registered" if result["registered"] else "revoked" if found else "not registered"
    answer(result, [f"{organisation} is {state}"], as_json)
