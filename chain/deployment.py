"""Finding a contract on a chain, or putting it there.

STATE/chain/contracts.json remembers the address of each contract for each chain. On development chains their shared
administrator deploys, and gives the coordinator funds and its role. Behind a URL nothing is given: the coordinator's
account must hold funds, and the one that deploys a contract becomes its administrator.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from eth_hash.auto import keccak
from eth_typing import ChecksumAddress
from eth_utils.address import is_address, to_checksum_address
from hexbytes import HexBytes
from web3 import Web3
from web3.types import RPCEndpoint, Wei

from chain import artefacts
from chain.addresses import create_address
from chain.contract import BoundContract
from chain.devnet.accounts import ALLOWANCE, FUNDS, ChainName, administrator
from chain.nodes import connect, reaching
from chain.transactions import Sender
from core.canonical import Address, parse_json
from core.errors import IntegrityError, UsageError
from core.keys import Key
from core.storage.blobs import write
from core.storage.lock import take

HANDOVER_SECONDS: Final = 86_400
"""How long a handover of the administration of a contract behind a URL takes at least."""
COORDINATOR_ROLE: Final = keccak(b"COORDINATOR_ROLE")


def bind(
    name: str, chain: str, state: Path, key: Key | None, *, contract: Address | None = None, side: ChainName = "public"
) -> BoundContract:
    """The contract `name` on `chain` (``embedded``, ``anvil`` or a URL) of the folder `state`.

    With a coordinator's key it is deployed when the chain has none yet, and the coordinator appointed; without it is
    read-only, and must be known from `contract` or from the state. Any number of processes may do this at once.

    Raises LedgerUnreachableError when no node answers, UsageError when no contract is known or there is no code at its
    address, IntegrityError when another contract is, LedgerConflictError when the coordinator has no role and nobody
    here may give it.
    """
    node = connect(chain, state, side)
    book = AddressBook(state, node)
    if contract and not (is_address(contract) and book.has_code(contract)):
        raise UsageError(f"expected the address of a contract on chain {node.eth.chain_id}, got {contract}")
    # Whoever names a contract may name one of their own, which answers whatever suits them.
    if contract and not BoundContract(node, name, contract).genuine:
        raise IntegrityError(f"contract {contract}: expected the code of {name}, got another contract's")
    if key is None:
        known = contract or book.find(name)
        if known is None:
            raise UsageError(f"expected a {name} that is known on chain {chain!r}, got none: give its address")
        return BoundContract(node, name, known)
    development = chain in ("embedded", "anvil")
    owner = administrator() if development else key
    # Two processes that start at once must not deploy two contracts.
    with book.locked():
        if development:
            endow(node, key)
        address = contract or book.find(name) or _deploy(node, name, owner, book)
        owned = BoundContract(node, name, address, owner)
        role = (COORDINATOR_ROLE, key.address)
        purpose = f"the coordinator's role of {key.address}"
        owned.execute(
            "grantRole", *role, effect=lambda: owned.call("hasRole", *role, purpose=purpose) or None, purpose=purpose
        )
    return BoundContract(node, name, address, key)


class AddressBook:
    """The addresses of contracts in STATE/chain/contracts.json, for each chain by its id and genesis hash."""

    def __init__(self, state: Path, node: Web3) -> None:
        self._node = node
        self._path = state / "chain" / "contracts.json"
        with reaching(node, "its genesis block"):
            genesis = HexBytes(node.eth.get_block(0)["hash"]).to_0x_hex()
            self._chain = f"{node.eth.chain_id}/{genesis}"

    def find(self, name: str) -> Address | None:
        """The address of contract `name`, if its code is still there."""
        address = self._load().get(self._chain, {}).get(name)
        return Address(address) if address and self.has_code(address) else None

    def has_code(self, address: str) -> bool:
        """Whether there is a contract at `address`."""
        with reaching(self._node, f"the code at {address}"):
            return bool(self._node.eth.get_code(to_checksum_address(address)))

    def enter(self, name: str, address: Address) -> None:
        """Remember a contract. The caller holds the lock."""
        content = self._load()
        content.setdefault(self._chain, {})[name] = address
        write(self._path, json.dumps(content, indent=1, sort_keys=True).encode() + b"\n")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let one process at a time deploy."""
        with take(self._path.with_suffix(".lock"), wait=True):
            yield

    def _load(self) -> dict[str, dict[str, str]]:
        try:
            content: dict[str, dict[str, str]] = parse_json(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        return content


def endow(node: Web3, key: Key) -> None:
    """Give an account of a development chain the funds for its transactions."""
    source = administrator()
    with reaching(node, "funds"):
        # anvil's genesis knows no administrator, and takes a balance from anybody.
        if node.client_version.startswith("anvil") and not node.eth.get_balance(_checksum(source)):
            node.provider.make_request(RPCEndpoint("anvil_setBalance"), [source.address, hex(FUNDS)])

    def funded() -> bool | None:
        return node.eth.get_balance(_checksum(key)) >= ALLOWANCE // 2 or None

    Sender(node, source, []).execute({"to": _checksum(key), "value": Wei(ALLOWANCE)}, funded, "funds")


def _deploy(node: Web3, name: str, deployer: Key, book: AddressBook) -> Address:
    """Deploy the contract; the deployer becomes its administrator."""
    artefact = artefacts.load(name)
    delay = 0 if deployer == administrator() else HANDOVER_SECONDS
    constructor = node.eth.contract(abi=artefact.abi, bytecode=artefact.bytecode).constructor(delay, deployer.address)
    account = _checksum(deployer)
    with reaching(node, "the deployer's nonce"):
        first = node.eth.get_transaction_count(account)

    def deployed() -> Address | None:
        """The contract, whichever of our transactions created it."""
        # Every nonce since: a transaction that seemed lost may have created it under an earlier one.
        for nonce in range(first, node.eth.get_transaction_count(account)):
            address = to_checksum_address(create_address(bytes.fromhex(account[2:]), nonce))
            if book.has_code(address):
                return Address(address)
        return None

    sender = Sender(node, deployer, artefact.abi)
    address = sender.execute({"data": constructor.data_in_transaction}, deployed, f"deploying {name}")
    book.enter(name, address)
    return address


def _checksum(key: Key) -> ChecksumAddress:
    return to_checksum_address(key.address)
