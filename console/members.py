"""`foedus members`: who joins and leaves a run, and registration of organisations with a contract."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from eth_utils.address import is_address, to_checksum_address

from chain.devnet.accounts import administrator
from chain.membership import MembershipRequest, digest_of_node_key, request_membership
from console.options import (
    FederationOption,
    JsonOption,
    RunArgument,
    StateOption,
    command_app,
    contract_of,
    parse_file,
    state_of,
    writable_file,
)
from console.views.tables import answer
from core import keys
from core.canonical import ZERO_DIGEST, Address
from core.errors import UsageError
from core.keys import Key
from core.storage.blobs import write

if TYPE_CHECKING:
    from chain.registry import RegisteredOrganisation, Registry

app = command_app(
    help="Who takes part: joining and leaving a run, and registration on the chain.",
    epilog="Example: foedus members show 0x…",
    no_args_is_help=True,
)

ChainOption = Annotated[str, typer.Option("--chain", help="embedded, anvil or an RPC URL.")]
ContractOption = Annotated[str | None, typer.Option("--address", help="The contract [the state folder's].")]
OrganisationArgument = Annotated[str, typer.Argument(metavar="ADDRESS", help="The organisation.")]


@app.command(epilog="Example: foedus members request --key ~/keys/hospital --out request.json")
def request(  # noqa: PLR0913, PLR0917 - one parameter an option
    key: Annotated[Path, typer.Option("--key", help="Key file of the organisation.")],
    out: Annotated[Path, typer.Option(help="Where the request is written.")],
    node_key: Annotated[Path | None, typer.Option(help="Its SuperNode's public key, an OpenSSH file.")] = None,
    days: Annotated[int, typer.Option(min=1, max=3650, help="Days until the request is worthless.")] = 7,
    chain: ChainOption = "embedded",
    address: ContractOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sign an organisation's request to be registered, with its SuperNode's key in a deployment."""
    out = writable_file(out, key, node_key)
    own, registry = keys.read(key.expanduser()), _registry(chain, state, address)
    digest = digest_of_node_key(node_key.expanduser()) if node_key else ZERO_DIGEST
    deadline = int(time.time()) + days * 86_400
    signed = request_membership(own, registry.domain, digest, registry.nonce(own.address), deadline)
    write(out, signed.to_json())
    result = {"organisation": own.address, "file": str(out)}
    answer(result, [f"Request of {own.address} in {out}"], as_json=as_json)


@app.command(epilog="Example: foedus members approve request.json --key ~/keys/coordinator")
def approve(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A signed request.")],
    key: Annotated[Path | None, typer.Option("--key", help="Key file of the coordinator.")] = None,
    chain: ChainOption = "embedded",
    address: ContractOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Register the organisation that signed a request."""
    signed = parse_file("request", file, "a signed request", MembershipRequest.from_json)
    coordinator = _key(key, chain, "coordinator")
    # On a development chain the administrator makes itself a coordinator.
    registry = _registry(chain, state, address, coordinator, appoint=key is None)
    _answer(signed.organisation, registry.register(signed), as_json)


@app.command(epilog="Example: foedus members revoke 0x… --key ~/keys/administrator")
def revoke(
    organisation: OrganisationArgument,
    key: Annotated[Path | None, typer.Option("--key", help="Key file of the contract's administrator.")] = None,
    chain: ChainOption = "embedded",
    address: ContractOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """End an organisation's registration for good, from the next round on."""
    registry, member = _registry(chain, state, address, _key(key, chain, "administrator")), _address(organisation)
    _answer(member, registry.revoke(member), as_json)


@app.command(epilog="Example: foedus members show 0x… --json")
def show(
    organisation: OrganisationArgument,
    chain: ChainOption = "embedded",
    address: ContractOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether an organisation is registered, with which node key, and whether that has ended."""
    member = _address(organisation)
    _answer(member, _registry(chain, state, address).read(member), as_json)


@app.command(epilog="Example: foedus members join radiology")
def join(
    organisation: Annotated[str, typer.Argument(metavar="NAME", help="The newcomer, whose node is connected.")],
    run: RunArgument = "",
    federation: FederationOption = "",
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let an organisation join a run behind its newest round; nothing is run again.

    It and more than half of the members must agree, each on its own node. Then resume the run.
    """
    from console.membership import change  # noqa: PLC0415 - backends, which registration does not need

    change({"mode": "join", "organisation": organisation}, run, federation, state, as_json=as_json)


@app.command(epilog="Example: foedus members leave --organisation coding")
def leave(
    run: RunArgument = "",
    request: Annotated[Path | None, typer.Option(help="What the organisation signed by sign-leave.")] = None,
    organisation: Annotated[str, typer.Option(help="In a simulation, without a request: who leaves.")] = "",
    federation: FederationOption = "",
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let an organisation leave a run behind its newest round; what it taught stays.

    To take that back, it asks to be erased (`foedus request`), before or after it has left.
    """
    if bool(request) == bool(organisation):
        raise UsageError(f"expected --request or --organisation, got {'both' if request else 'neither'}")
    given = {"request": str(request)} if request else {"organisation": organisation}
    from console.membership import change  # noqa: PLC0415 - as above

    change({"mode": "leave", **given}, run, federation, state, as_json=as_json)


@app.command(epilog="Example: foedus members sign-leave /etc/foedus/signer --out leave.json")
def sign_leave(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder with signer.toml, or with node.toml where there is no signer.")
    ],
    out: Annotated[Path, typer.Option(help="The file to write, for the coordinator.")],
    run: Annotated[str, typer.Option(help="The federation's run id [the newest that was agreed to].")] = "",
    as_json: JsonOption = False,
) -> None:
    """Sign, as an organisation, that it leaves its federation; on its own machine."""
    from console.membership import sign  # noqa: PLC0415 - messages, which registration does not need

    sign(folder, out, run, as_json=as_json)


@app.command(epilog="Example: foedus members rotate --request rotation.json --federation clinics")
def rotate(  # noqa: PLR0913, PLR0917 - one parameter an option
    run: RunArgument = "",
    request: Annotated[Path | None, typer.Option(help="What an organisation signed by sign-rotation.")] = None,
    new_key: Annotated[Path | None, typer.Option(help="Key file that replaces the coordinator's own.")] = None,
    former_key: Annotated[
        Path | None, typer.Option(help="Key file that is replaced; after a loss an auditor's, which reads the run.")
    ] = None,
    administrator_key: Annotated[
        Path | None, typer.Option(help="After a loss: key file of the contract's administrator.")
    ] = None,
    federation: FederationOption = "",
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Replace the key of an organisation, or of the coordinator, behind a run's newest round; nothing is run again.

    Records before stay verified by the old key. Then resume the run.
    """
    if bool(request) == bool(new_key):
        raise UsageError(f"expected --request or --new-key, got {'both' if request else 'neither'}")
    files = {
        "request": request,
        "coordinator-key": new_key,
        "former-key": former_key,
        "administrator-key": administrator_key,
    }
    given = {name: str(path.expanduser().absolute()) for name, path in files.items() if path}
    from console.membership import change  # noqa: PLC0415 - as above

    change({"mode": "rotate", **given}, run, federation, state, as_json=as_json)


@app.command(epilog="Example: foedus members sign-rotation /etc/foedus/signer --new-key new.key --out rotation.json")
def sign_rotation(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder with signer.toml, or with node.toml where there is no signer.")
    ],
    new_key: Annotated[Path, typer.Option(help="Key file of the new key.")],
    out: Annotated[Path, typer.Option(help="The file to write, for the coordinator.")],
    lost: Annotated[
        str, typer.Option(metavar="NAME", help="The organisation, whose old key is lost: the administrator signs then.")
    ] = "",
    run: Annotated[str, typer.Option(help="The federation's run id [the newest that was agreed to].")] = "",
    as_json: JsonOption = False,
) -> None:
    """Sign, as an organisation, that a new key replaces its own in a federation; on its own machine."""
    from console.membership import sign_new_key  # noqa: PLC0415 - messages, which registration does not need

    sign_new_key(folder, new_key, out, lost, run, as_json=as_json)


def _registry(
    chain: str, state: Path | None, contract: str | None, key: Key | None = None, *, appoint: bool = False
) -> "Registry":
    """The registry of a contract, read-only without a key; `appoint` gives the key the coordinator's role."""
    from chain.registry import registry_of  # noqa: PLC0415 - web3, which only a question to the chain needs

    address = contract_of(contract) if contract else None
    return registry_of(chain, state_of(state).folder, address, key, appoint=appoint)


def _address(text: str) -> Address:
    """An organisation's address, however its letters are cased; raises UsageError."""
    if not is_address(text):
        raise UsageError(f"expected the address of an organisation, got {text!r}")
    return Address(to_checksum_address(text))


def _key(option: Path | None, chain: str, role: str) -> Key:
    """The key file's, or on a development chain the administrator's; raises UsageError elsewhere without a file."""
    if option:
        return keys.read(option.expanduser())
    if chain not in ("embedded", "anvil"):
        raise UsageError(f"expected --key, the key file of the {role} on {chain}, got none")
    return administrator()


def _answer(organisation: str, entry: "RegisteredOrganisation | None", as_json: bool) -> None:
    """Print an organisation's entry in the contract; None where it has none."""
    result: dict[str, Any] = {
        "organisation": organisation,
        "registered": bool(entry and not entry.revoked_at),
        "node_key": entry.node_key if entry and entry.node_key != ZERO_DIGEST else None,
        "registered_at": entry.registered_at if entry else None,
        "revoked_at": (entry.revoked_at or None) if entry else None,
    }
    state = "registered" if result["registered"] else "revoked" if entry else "not registered"
    answer(result, [f"{organisation} is {state}"], as_json=as_json)
