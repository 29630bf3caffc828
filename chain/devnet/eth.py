"""The eth_ methods that web3 libraries, wallets and explorers use, over an embedded chain.

Values follow the execution API specification (https://ethereum.github.io/execution-apis): quantities are hex without
leading zeros, byte strings hex of even length. There is no mempool: a transaction is mined when it is sent, so
"pending" is "latest". No method signs: the node holds no keys.
"""

import re
from collections.abc import Callable, Iterator
from inspect import getmembers, ismethod
from typing import Any, Final

import rlp

from chain.addresses import create_address
from chain.devnet.evm import GAS_LIMIT, Call, EmbeddedChain

Json = Any
_NEWEST: Final = ("latest", "pending", "safe", "finalized")
_NO_ADDRESS: Final = bytes(20)
_DYNAMIC_FEE: Final = 2
"""The transaction type of EIP-1559."""


class UnknownBlockError(Exception):
    """A block that the chain does not have."""


class EthMethods:
    """A method of JSON-RPC for each public one: eth_getBalance is `get_balance`.

    Parameters come unchecked from the wire: TypeError, ValueError, KeyError and AttributeError mean that they are no
    good. Every method that takes a block raises UnknownBlockError when there is none.
    """

    def __init__(self, chain: EmbeddedChain) -> None:
        self._chain = chain

    # Constants and accounts

    def accounts(self) -> list[str]:
        """No accounts: the node holds no keys."""
        return []

    def block_number(self) -> str:
        """The number of the newest block."""
        return hex(self._chain.head.block_number)

    def chain_id(self) -> str:
        """The id that transactions are signed for (EIP-155)."""
        return hex(self._chain.chain_id)

    def gas_price(self) -> str:
        """The base fee: nobody competes for a block, so no tip is needed."""
        return hex(self._chain.head.base_fee_per_gas)

    def max_priority_fee_per_gas(self) -> str:
        """No tip."""
        return "0x0"

    def syncing(self) -> bool:
        """Never: the chain has no peers."""
        return False

    def get_balance(self, address: str, at: Json = "latest") -> str:
        """An account's wei after a block."""
        return hex(self._state(at).get_balance(_bytes(address)))

    def get_code(self, address: str, at: Json = "latest") -> str:
        """The code at an address after a block."""
        return hexadecimal(self._state(at).get_code(_bytes(address)))

    def get_storage_at(self, address: str, slot: str, at: Json = "latest") -> str:
        """A contract's 32-byte storage slot after a block."""
        return f"0x{self._state(at).get_storage(_bytes(address), int(slot, 16)):064x}"

    def get_transaction_count(self, address: str, at: Json = "latest") -> str:
        """The next nonce of an account after a block."""
        return hex(self._state(at).get_nonce(_bytes(address)))

    # Execution

    def call(self, transaction: Json, at: Json = "latest", _overrides: Json = None) -> str:
        """The output of a call on the state after a block."""
        return hexadecimal(self._chain.call(_as_call(transaction), self._header(at)))

    def estimate_gas(self, transaction: Json, _at: Json = "latest") -> str:
        """Gas with which a call succeeds on the newest state."""
        return hex(self._chain.estimate_gas(_as_call(transaction)))

    def send_raw_transaction(self, signed: str) -> str:
        """Mine a signed transaction; returns its hash."""
        return hexadecimal(self._chain.send(_bytes(signed)))

    # Blocks, transactions and logs

    def get_block_by_number(self, at: Json, full: bool = False) -> Json:
        """A block, with its transactions or their hashes; null when there is none."""
        header = self._chain.header(self._number(at))
        return None if header is None else _block(self._chain.block(header), full)

    def get_block_by_hash(self, block_hash: str, full: bool = False) -> Json:
        """As `get_block_by_number`."""
        block = self._chain.block_by_hash(_bytes(block_hash))
        return None if block is None else _block(block, full)

    def fee_history(self, count: str | int, newest: Json, percentiles: Json = None) -> Json:
        """Base fees and fill of `count` blocks up to `newest`, and the base fee of the one after."""
        last = self._header(newest).block_number
        span = int(count, 16) if isinstance(count, str) else count
        headers = [self._header(hex(number)) for number in range(max(0, last - span + 1), last + 1)]
        return {
            "oldestBlock": hex(headers[0].block_number),
            "baseFeePerGas": [hex(header.base_fee_per_gas) for header in [*headers, headers[-1]]],
            "gasUsedRatio": [header.gas_used / header.gas_limit for header in headers],
            "reward": [["0x0"] * len(percentiles or ()) for _ in headers],
        }

    def get_transaction_by_hash(self, transaction_hash: str) -> Json:
        """A mined transaction; null when there is none."""
        located = self._chain.locate(_bytes(transaction_hash))
        return None if located is None else _transaction(located.block, located.index)

    def get_transaction_receipt(self, transaction_hash: str) -> Json:
        """The receipt of a mined transaction; null when there is none."""
        located = self._chain.locate(_bytes(transaction_hash))
        if located is None:
            return None
        block, index, transaction = located.block, located.index, located.transaction
        receipt = located.receipts[index]
        # Receipts hold the gas of the block so far.
        before = located.receipts[index - 1].gas_used if index else 0
        own = _transaction(block, index)
        return {
            "transactionHash": own["hash"],
            **{name: own[name] for name in ("transactionIndex", "blockHash", "blockNumber", "from", "to", "type")},
            "contractAddress": (
                None if transaction.to else hexadecimal(create_address(transaction.sender, transaction.nonce))
            ),
            "status": hex(int.from_bytes(receipt.state_root, "big")),
            "cumulativeGasUsed": hex(receipt.gas_used),
            "gasUsed": hex(receipt.gas_used - before),
            "effectiveGasPrice": own["gasPrice"],
            "logs": [log for log in _logs(block, located.receipts) if log["transactionHash"] == own["hash"]],
            "logsBloom": f"0x{receipt.bloom:0512x}",
        }

    def get_logs(self, choice: Json) -> Json:
        """The logs of a range of blocks, or of the block with a hash, by address and topics."""
        if "blockHash" in choice:
            first = last = self._header({"blockHash": choice["blockHash"]}).block_number
        else:
            first = self._header(choice.get("fromBlock") or "latest").block_number
            last = min(self._chain.head.block_number, self._number(choice.get("toBlock") or "latest"))
        blocks = self._chain.blocks_with_logs(first, last)
        logs = (log for block in blocks for log in _logs(block, self._chain.receipts(block)))
        addresses, topics = _alternatives(choice.get("address")), list(map(_alternatives, choice.get("topics") or ()))
        return [log for log in logs if _is_one_of(log["address"], addresses) and _matches(log["topics"], topics)]

    def _number(self, at: str) -> int:
        """The number that a tag or a quantity stands for, of a block that may not exist."""
        if at in _NEWEST:
            return int(self._chain.head.block_number)
        return 0 if at == "earliest" else int(at, 16)

    def _header(self, at: Json) -> Any:
        """The header that a number, a tag or {blockNumber | blockHash} stands for."""
        if isinstance(at, dict) and "blockHash" in at:
            block = self._chain.block_by_hash(_bytes(at["blockHash"]))
            header = None if block is None else block.header
        else:
            header = self._chain.header(self._number(at["blockNumber"] if isinstance(at, dict) else at))
        if header is None:
            raise UnknownBlockError(f"there is no block {at}")
        return header

    def _state(self, at: Json) -> Any:
        return self._chain.state(self._header(at))


def methods_of(chain: EmbeddedChain) -> dict[str, Callable[..., Json]]:
    """The methods of a chain by the names that they have in JSON-RPC."""
    members = getmembers(EthMethods(chain), ismethod)
    return {
        "eth_" + re.sub("_(.)", lambda match: match[1].upper(), name): method
        for name, method in members
        if not name.startswith("_")
    }


def hexadecimal(data: bytes) -> str:
    """A byte string as JSON-RPC has it."""
    return "0x" + data.hex()


def _bytes(text: str) -> bytes:
    if not text.startswith("0x"):
        raise ValueError(f"expected hex that begins with 0x, got {text[:80]!r}")
    return bytes.fromhex(text[2:])


def _as_call(transaction: dict[str, Json]) -> Call:
    """A call; without a sender it comes from the zero address, which is free to call."""
    data = transaction.get("input") or transaction.get("data") or "0x"
    return Call(
        sender=_bytes(transaction["from"]) if transaction.get("from") else _NO_ADDRESS,
        to=_bytes(transaction.get("to") or "0x"),
        data=_bytes(data),
        value=int(transaction.get("value") or "0x0", 16),
        gas=min(int(transaction.get("gas") or hex(GAS_LIMIT), 16), GAS_LIMIT),
    )


def _alternatives(value: Json) -> set[str] | None:
    """A filter's position: None matches everything, a list any of its members."""
    if value is None:
        return None
    return {item.lower() for item in ([value] if isinstance(value, str) else value)}


def _is_one_of(value: str, alternatives: set[str] | None) -> bool:
    return alternatives is None or value in alternatives


def _matches(topics: list[str], filters: list[set[str] | None]) -> bool:
    return len(topics) >= len(filters) and all(map(_is_one_of, topics, filters))


def _logs(block: Any, receipts: tuple[Any, ...]) -> Iterator[dict[str, Json]]:
    """The logs of a block, in order."""
    pairs = ((index, log) for index, receipt in enumerate(receipts) for log in receipt.logs)
    for position, (index, log) in enumerate(pairs):
        yield {
            "address": hexadecimal(log.address),
            "topics": [f"0x{topic:064x}" for topic in log.topics],
            "data": hexadecimal(log.data),
            "blockNumber": hex(block.number),
            "blockHash": hexadecimal(block.hash),
            "transactionHash": hexadecimal(block.transactions[index].hash),
            "transactionIndex": hex(index),
            "logIndex": hex(position),
            "removed": False,
        }


def _block(block: Any, full: bool) -> dict[str, Json]:
    header = block.header
    transactions = [
        _transaction(block, index) if full else hexadecimal(transaction.hash)
        for index, transaction in enumerate(block.transactions)
    ]
    return {
        "number": hex(header.block_number),
        "hash": hexadecimal(header.hash),
        "parentHash": hexadecimal(header.parent_hash),
        "nonce": hexadecimal(header.nonce),
        "sha3Uncles": hexadecimal(header.uncles_hash),
        "logsBloom": f"0x{header.bloom:0512x}",
        "transactionsRoot": hexadecimal(header.transaction_root),
        "receiptsRoot": hexadecimal(header.receipt_root),
        "stateRoot": hexadecimal(header.state_root),
        "miner": hexadecimal(header.coinbase),
        "difficulty": hex(header.difficulty),
        # After the merge every block has difficulty 0, so that the total stays what it was: 0 here.
        "totalDifficulty": hex(header.difficulty),
        "mixHash": hexadecimal(header.mix_hash),
        "size": hex(len(rlp.encode(block))),
        "extraData": hexadecimal(header.extra_data),
        "gasLimit": hex(header.gas_limit),
        "gasUsed": hex(header.gas_used),
        "timestamp": hex(header.timestamp),
        "baseFeePerGas": hex(header.base_fee_per_gas),
        "transactions": transactions,
        "uncles": [],
    }


def _transaction(block: Any, index: int) -> dict[str, Json]:
    transaction, base_fee = block.transactions[index], block.header.base_fee_per_gas
    kind = transaction.type_id or 0  # transactions of the oldest kind have none
    # Base fee and tip, at most the transaction's maximum (EIP-1559).
    price = min(transaction.max_fee_per_gas, base_fee + transaction.max_priority_fee_per_gas)
    fields = {
        "type": hex(kind),
        "hash": hexadecimal(transaction.hash),
        "nonce": hex(transaction.nonce),
        "blockHash": hexadecimal(block.hash),
        "blockNumber": hex(block.number),
        "transactionIndex": hex(index),
        "chainId": hex(transaction.chain_id),
        "from": hexadecimal(transaction.sender),
        "to": hexadecimal(transaction.to) if transaction.to else None,
        "value": hex(transaction.value),
        "gas": hex(transaction.gas),
        "gasPrice": hex(price),
        "input": hexadecimal(transaction.data),
        "v": hex(transaction.y_parity if kind else transaction.v),
        "r": hex(transaction.r),
        "s": hex(transaction.s),
    }
    if kind >= _DYNAMIC_FEE:
        fields["maxFeePerGas"] = hex(transaction.max_fee_per_gas)
        fields["maxPriorityFeePerGas"] = hex(transaction.max_priority_fee_per_gas)
    return fields
