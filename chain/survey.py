"""A chain as somebody sees it who has no account there: `foedus doctor` asks it, and sends nothing."""

from dataclasses import dataclass
from functools import cached_property
from typing import Final

from eth_utils.address import to_checksum_address
from web3 import Web3

from chain.contract import BoundContract
from chain.nodes import reaching, rpc
from chain.registry import RegisteredOrganisation, Registry
from core.canonical import Address

PATIENCE_SECONDS: Final = 5.0
ROUND_GAS: Final = 200_000
"""More than a round's transaction takes: 128,261 the first, as measured in docs/results/chain-and-audit.md."""


@dataclass(frozen=True)
class Survey:
    """A public contract on a chain behind a URL; whatever is asked may raise LedgerUnreachableError."""

    url: str
    contract: Address

    @cached_property
    def _node(self) -> Web3:
        return rpc(self.url, PATIENCE_SECONDS)

    @property
    def _bound(self) -> BoundContract:
        return BoundContract(self._node, "PublicLedger", self.contract)

    @property
    def chain_id(self) -> int:
        """The chain's id."""
        return self._bound.domain.chain_id

    @property
    def genuine(self) -> bool:
        """Whether the contract's code is that of this version."""
        return self._bound.genuine

    @property
    def time(self) -> int:
        """The newest block's time, in Unix seconds."""
        with reaching(self._node, "its newest block"):
            return int(self._node.eth.get_block("latest")["timestamp"])

    def registered(self, organisation: Address) -> RegisteredOrganisation | None:
        """An organisation's place in the registry."""
        return Registry(self._bound).read(organisation)

    def rounds_paid(self, account: Address) -> int:
        """How many rounds an account's balance pays at the present price of gas."""
        with reaching(self._node, f"the balance of {account}"):
            balance, price = self._node.eth.get_balance(to_checksum_address(account)), self._node.eth.gas_price
        return int(balance // max(price * ROUND_GAS, 1))
