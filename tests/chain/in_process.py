"""An embedded chain in this process, for tests of everything that talks to a node: no daemon, no port."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from web3 import Web3
from web3.providers.base import BaseProvider
from web3.types import RPCEndpoint, RPCResponse

from chain import artefacts
from chain.contract import BoundContract
from chain.deployment import COORDINATOR_ROLE
from chain.devnet.accounts import ALLOWANCE, CHAIN_IDS, FUNDS, ChainName, administrator
from chain.devnet.evm import EmbeddedChain
from chain.devnet.rpc import JsonRpc
from chain.transactions import Sender
from core.canonical import Address
from core.keys import Key


class InProcessProvider(BaseProvider):
    """Asks a chain directly; `around` may stand between, to lose, delay or forge answers."""

    def __init__(self, chain: EmbeddedChain) -> None:
        super().__init__()
        self.rpc = JsonRpc(chain)
        self.asked: list[str] = []
        self.around: Callable[[str, Callable[[], Any]], Any] = lambda _method, ask: ask()

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        self.asked.append(method)
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
        response: RPCResponse = self.around(method, lambda: self.rpc.answer(request))
        return response


def node_on(folder: Path, name: ChainName = "public") -> Web3:
    """A node with a chain of its own, whose administrator is that of all development chains."""
    alloc = {bytes.fromhex(administrator().address[2:]): FUNDS}
    return Web3(InProcessProvider(EmbeddedChain(folder / f"{name}.sqlite", CHAIN_IDS[name], alloc)))


def provider_of(node: Web3) -> InProcessProvider:
    assert isinstance(node.provider, InProcessProvider)
    return node.provider


def deployed(node: Web3, name: str, coordinator: Key) -> BoundContract:
    """The contract `name` on a new chain, with `coordinator` appointed and given funds."""
    artefact, owner = artefacts.load(name), administrator()
    constructor = node.eth.contract(abi=artefact.abi, bytecode=artefact.bytecode).constructor(0, owner.address)
    sender = Sender(node, owner, artefact.abi)

    def send(request: Any) -> Any:
        before = node.eth.block_number
        sender.execute(request, lambda: node.eth.block_number > before or None, "a test")
        (transaction,) = node.eth.get_block("latest")["transactions"]
        return node.eth.get_transaction_receipt(transaction)  # type: ignore[arg-type]  # a hash

    address = Address(send({"data": constructor.data_in_transaction})["contractAddress"])
    send({"to": coordinator.address, "value": ALLOWANCE})
    granting = node.eth.contract(abi=artefact.abi).encode_abi("grantRole", [COORDINATOR_ROLE, coordinator.address])
    send({"to": address, "data": granting})
    return BoundContract(node, name, address, coordinator)
