"""A contract of ours on a node: the calls, events and transactions that every reader and writer of it needs."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

from eth_utils.address import to_checksum_address
from hexbytes import HexBytes
from web3 import Web3
from web3.types import BlockIdentifier, EventData

from chain import artefacts
from chain.nodes import reaching
from chain.transactions import Sender
from core.canonical import Address, Digest
from core.errors import UsageError
from core.keys import Domain, Key
from core.ledger import Anchor

T = TypeVar("T")


class BoundContract:
    """Every method raises LedgerUnreachableError when the node does not answer; messages name the `purpose`."""

    def __init__(self, node: Web3, name: str, address: Address, key: Key | None = None) -> None:
        """`name`: of the artefact; `key`: of the account that writes, without it the contract can only be read."""
        self.node = node
        self.address = Address(to_checksum_address(address))
        self._name = name
        abi = artefacts.load(name).abi
        self._contract = node.eth.contract(address=to_checksum_address(address), abi=abi)
        self._sender = Sender(node, key, abi) if key else None

    @cached_property
    def domain(self) -> Domain:
        """The contract's chain and address."""
        with reaching(self.node, "its chain id"):
            return Domain(int(self.node.eth.chain_id), self.address)

    @property
    def newest_block(self) -> int:
        """The number of the chain's newest block."""
        with reaching(self.node, "its newest block"):
            return int(self.node.eth.block_number)

    @property
    def newest_hash(self) -> Digest:
        """The hash of the chain's newest block: as long as it stays, nothing on the chain has changed."""
        with reaching(self.node, "its newest block"):
            return to_digest(self.node.eth.get_block("latest")["hash"])

    @property
    def genuine(self) -> bool:
        """Whether the code at the address is this contract's, as it was compiled here."""
        with reaching(self.node, f"the code at {self.address}"):
            code = self.node.eth.get_code(to_checksum_address(self.address))
        return artefacts.load(self._name).is_code(code)

    def written_by(self, key: Key) -> "BoundContract":
        """The same contract, written by another account."""
        return BoundContract(self.node, self._name, self.address, key)

    @property
    def account(self) -> Address | None:
        """The account that writes."""
        return Address(self._sender.address) if self._sender else None

    def call(self, function: str, *arguments: Any, purpose: str) -> Any:
        """The newest value of a view function; structs come as tuples."""
        with reaching(self.node, purpose):
            return self._contract.get_function_by_name(function)(*arguments).call()

    def events(
        self, event: str, first: int, last: BlockIdentifier, filters: dict[str, Any], *, purpose: str
    ) -> list[EventData]:
        """The events of blocks `first` to `last` whose indexed arguments are those of `filters`."""
        with reaching(self.node, purpose):
            logs = self._contract.events[event]().get_logs(from_block=first, to_block=last, argument_filters=filters)
            return list(logs)

    def execute(self, function: str, *arguments: Any, effect: Callable[[], T | None], purpose: str) -> T:
        """Send a transaction unless and until `effect` returns something; see `Sender.execute`.

        Raises UsageError when there is no key.
        """
        if self._sender is None:
            raise UsageError(f"expected the key of an account for {purpose}, got none")
        data = self._contract.encode_abi(function, list(arguments))
        return self._sender.execute({"to": self._contract.address, "data": data}, effect, purpose)

    def anchor(self, event: EventData) -> Anchor:
        """The receipt of the transaction that emitted an event."""
        transaction = HexBytes(event["transactionHash"]).to_0x_hex()
        return Anchor(self.domain.chain_id, self.address, transaction, event["blockNumber"])


def to_digest(data: bytes) -> Digest:
    """A bytes32 of the ABI as a digest."""
    return Digest("0x" + bytes(data).hex())
