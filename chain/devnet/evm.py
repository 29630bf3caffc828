"""One embedded Ethereum chain: py-evm over sqlite3, a block for each transaction.

Everything that py-evm's tester leaves to chance is derived, so that the same transactions at the same times give the
same blocks: genesis has a fixed time, and a block's mixHash (the EVM's PREVRANDAO) is keccak256 of a tag and the
parent's hash. Only replay-protected transactions of this chain are accepted. A block is on disk before the hash of its
transaction is returned. Nothing here is safe against concurrent callers: the server holds a lock.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from eth.chains.base import MiningChain
from eth.constants import (
    BLANK_ROOT_HASH,
    POST_MERGE_DIFFICULTY,
    POST_MERGE_MIX_HASH,
    POST_MERGE_NONCE,
    ZERO_ADDRESS,
)
from eth.db.atomic import AtomicDB
from eth.exceptions import HeaderNotFound, PyEVMError, TransactionNotFound
from eth.vm.forks import PragueVM
from eth.vm.spoof import SpoofTransaction
from eth_hash.auto import keccak
from eth_utils.exceptions import ValidationError
from rlp.exceptions import RLPException

from chain.devnet.store import Store
from core.canonical import domain

GENESIS_TIME: Final = 1_735_689_600
GAS_LIMIT: Final = 30_000_000
_BLOB_TRANSACTION: Final = 3
_GENESIS: Final = {
    "coinbase": ZERO_ADDRESS,
    "difficulty": POST_MERGE_DIFFICULTY,
    "extra_data": b"foedus",
    "gas_limit": GAS_LIMIT,
    "mix_hash": POST_MERGE_MIX_HASH,
    "nonce": POST_MERGE_NONCE,
    "receipt_root": BLANK_ROOT_HASH,
    "timestamp": GENESIS_TIME,
    "transaction_root": BLANK_ROOT_HASH,
}


class InvalidTransactionError(Exception):
    """A transaction that the chain does not take: wrong chain, nonce, funds or encoding."""


class RevertedError(Exception):
    """A call that the contract reverted; `data` is the ABI-encoded error."""

    def __init__(self, reason: str, data: bytes) -> None:
        super().__init__(reason)
        self.data = data


@dataclass(frozen=True)
class Call:
    """A call that is executed without being sent."""

    sender: bytes
    to: bytes
    data: bytes
    value: int
    gas: int


@dataclass(frozen=True)
class Located:
    """A mined transaction with its block, index and receipts of the whole block."""

    block: Any
    index: int
    receipts: tuple[Any, ...]

    @property
    def transaction(self) -> Any:
        """The transaction itself."""
        return self.block.transactions[self.index]


class EmbeddedChain:
    """A chain that lives in one file."""

    def __init__(self, path: Path, chain_id: int, alloc: dict[bytes, int]) -> None:
        """Open the chain in `path`, or begin one whose genesis gives each address of `alloc` that many wei."""
        self.chain_id = chain_id
        self._store = Store(path)
        kind = MiningChain.configure(chain_id=chain_id, vm_configuration=((0, PragueVM),))
        if any(self._store):  # asking for its length would read the whole file
            self._chain = kind(AtomicDB(self._store))
        else:
            accounts = {
                address: {"balance": balance, "nonce": 0, "code": b"", "storage": {}}
                for address, balance in alloc.items()
            }
            self._chain = kind.from_genesis(AtomicDB(self._store), _GENESIS, accounts)
            self._store.commit()

    def close(self) -> None:
        """Close the file."""
        self._store.close()

    @property
    def head(self) -> Any:
        """The newest header."""
        return self._chain.get_canonical_head()

    def header(self, number: int) -> Any | None:
        """The header at `number`, or None."""
        try:
            return self._chain.get_canonical_block_header_by_number(number)
        except HeaderNotFound:
            return None

    def block(self, header: Any) -> Any:
        """The block of a header."""
        return self._chain.get_block_by_header(header)

    def block_by_hash(self, block_hash: bytes) -> Any | None:
        """The block with that hash, or None."""
        try:
            return self._chain.get_block_by_hash(block_hash)
        except HeaderNotFound:
            return None

    def locate(self, transaction_hash: bytes) -> Located | None:
        """A mined transaction, or None."""
        try:
            number, index = self._chain.get_canonical_transaction_index(transaction_hash)
        except TransactionNotFound:
            return None
        block = self._chain.get_canonical_block_by_number(number)
        return Located(block, index, self.receipts(block))

    def receipts(self, block: Any) -> tuple[Any, ...]:
        """The receipts of a block's transactions, in order."""
        return tuple(block.get_receipts(self._chain.chaindb))

    def state(self, header: Any) -> Any:
        """The accounts after the block of `header`."""
        return self._chain.get_vm(header).state

    def call(self, call: Call, header: Any) -> bytes:
        """Execute a call on the state after `header`, free of charge.

        Raises RevertedError, and InvalidTransactionError when the sender lacks the value it sends.
        """
        return bytes(self._execute(call, header)[1].output)

    def estimate_gas(self, call: Call) -> int:
        """Gas with which a call succeeds now, at most a 63rd above the least. Raises as `call` does."""
        header = self.head
        transaction, computation = self._execute(call, header)
        # An inner call gets all but a 64th of what is left (EIP-150): most calls succeed with this much on top.
        gas = transaction.gas_used_by(computation) * 64 // 63 + 1
        try:
            self._execute(replace(call, gas=gas), header)
        except (RevertedError, InvalidTransactionError):
            return int(self._chain.estimate_gas(transaction))
        return int(gas)

    def _execute(self, call: Call, header: Any) -> tuple[Any, Any]:
        """The transaction that was made of a call, and its computation."""
        unsigned = self._chain.create_unsigned_transaction(
            nonce=self.state(header).get_nonce(call.sender),
            gas_price=0,
            gas=call.gas,
            to=call.to,
            value=call.value,
            data=call.data,
        )
        transaction = SpoofTransaction(unsigned, from_=call.sender)
        with self._chain.get_vm(header).in_costless_state() as state:
            try:
                computation = state.costless_execute_transaction(transaction)
            except ValidationError as error:
                raise InvalidTransactionError(str(error)) from error
        if computation.is_error:
            reason = computation.error
            # A revert's bytes name the contract's custom error and its arguments; other failures have none.
            data = reason.args[0] if reason.args and isinstance(reason.args[0], bytes) else b""
            raise RevertedError("execution reverted" if data else f"execution failed: {reason}", data)
        return transaction, computation

    def send(self, raw: bytes) -> bytes:
        """Execute a signed transaction, mine its block and make it durable; returns the transaction's hash.

        Raises InvalidTransactionError when it cannot be mined; a transaction that reverts is mined with status 0.
        """
        transaction, parent = self._decode(raw), self.head
        balance = self.state(parent).get_balance(transaction.sender)
        cost = transaction.gas * transaction.max_fee_per_gas + transaction.value
        if balance < cost:
            # py-evm would print the sender's bytes, and no amount.
            raise InvalidTransactionError(f"insufficient funds: expected {cost} wei of the sender, got {balance}")
        self._chain.header = self._chain.create_header_from_parent(
            parent, timestamp=max(int(time.time()), parent.timestamp + 1), gas_limit=parent.gas_limit
        )
        try:
            self._chain.apply_transaction(transaction)
        except ValidationError as error:
            raise InvalidTransactionError(str(error)) from error
        mix = keccak(domain("mix") + parent.hash)
        self._chain.mine_block(coinbase=ZERO_ADDRESS, mix_hash=mix, blob_gas_used=0)
        self._store.commit()
        return bytes(transaction.hash)

    def blocks_with_logs(self, first: int, last: int) -> Iterator[Any]:
        """Blocks from `first` to `last` that hold any log: an empty bloom filter is skipped unread."""
        for number in range(first, last + 1):
            header = self.header(number)
            if header is not None and header.bloom:
                yield self.block(header)

    def _decode(self, raw: bytes) -> Any:
        if raw[:1] == bytes([_BLOB_TRANSACTION]):
            raise InvalidTransactionError("expected a transaction without blobs, got one with")
        try:
            transaction = self._chain.get_vm().get_transaction_builder().decode(raw)
            transaction.check_signature_validity()
        except (RLPException, PyEVMError, ValidationError, ValueError) as error:
            raise InvalidTransactionError(f"expected a signed transaction, got {error}") from error
        if transaction.chain_id != self.chain_id:
            raise InvalidTransactionError(
                f"expected a transaction signed for chain {self.chain_id}, got one for chain {transaction.chain_id}"
            )
        return transaction
