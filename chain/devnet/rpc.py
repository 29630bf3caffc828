"""Ethereum's JSON-RPC over an embedded chain: the methods that web3 libraries, wallets and explorers use.

Values follow the execution API specification (https://ethereum.github.io/execution-apis): quantities are hex without
leading zeros, byte strings hex of even length. There is no mempool: a transaction is mined when it is sent, so
"pending" is "latest". No method signs: the node holds no keys.
"""

import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any, Final

import rlp

from chain.addresses import created
from chain.devnet.evm import GAS_LIMIT, Call, EmbeddedChain, InvalidTransactionError, Located, RevertedError

Json = Any
PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
REFUSED: Final = -32000
REVERTED: Final = 3
_NEWEST: Final = ("latest", "pending", "safe", "finalized")
_NO_ADDRESS: Final = bytes(20)


class RpcError(Exception):
    """An error object of JSON-RPC."""

    def __init__(self, code: int, message: str, data: str | None = None) -> None:
        super().__init__(message)
        self.body: dict[str, Json] = {"code": code, "message": message}
        if data is not None:
            self.body["data"] = data


class JsonRpc:
    """The methods, one request at a time."""

    def __init__(self, chain: EmbeddedChain) -> None:
        self._chain = chain
        self._lock = threading.Lock()
        self._methods: dict[str, Callable[..., Json]] = {
            "eth_accounts": list,
            "eth_blockNumber": lambda: hex(chain.head.block_number),
            "eth_call": self._call,
            "eth_chainId": lambda: hex(chain.chain_id),
            "eth_estimateGas": self._estimate_gas,
            "eth_feeHistory": self._fee_history,
            "eth_gasPrice": lambda: hex(chain.head.base_fee_per_gas),
            "eth_getBalance": lambda address, at="latest": hex(self._state(at).get_balance(_bytes(address))),
            "eth_getBlockByHash": self._get_block_by_hash,
            "eth_getBlockByNumber": self._get_block_by_number,
            "eth_getCode": lambda address, at="latest": _hex(self._state(at).get_code(_bytes(address))),
            "eth_getLogs": self._get_logs,
            "eth_getStorageAt": self._get_storage_at,
            "eth_getTransactionByHash": self._get_transaction,
            "eth_getTransactionCount": lambda address, at="latest": hex(self._state(at).get_nonce(_bytes(address))),
            "eth_getTransactionReceipt": self._get_receipt,
            "eth_maxPriorityFeePerGas": lambda: "0x0",
            "eth_sendRawTransaction": self._send,
            "eth_syncing": lambda: False,
            "net_version": lambda: str(chain.chain_id),
            "web3_clientVersion": lambda: "foedus/embedded",
        }

    def answer(self, request: Json) -> Json:
        """Answer one request object or a batch of them."""
        if isinstance(request, list):
            return [self._answer_one(item) for item in request]
        return self._answer_one(request)

    def _answer_one(self, request: Json) -> Json:
        if not isinstance(request, dict):
            return failure(None, RpcError(INVALID_REQUEST, "a request is a JSON object"))
        identity = request.get("id")
        try:
            result = self._dispatch(request.get("method"), request.get("params", []))
        except RpcError as error:
            return failure(identity, error)
        except RevertedError as error:
            return failure(identity, RpcError(REVERTED, str(error), _hex(error.data)))
        except InvalidTransactionError as error:
            return failure(identity, RpcError(REFUSED, str(error)))
        except OSError:
            raise
        except Exception:  # noqa: BLE001 - the boundary: our own fault is logged, and answered as such
            traceback.print_exc()
            return failure(identity, RpcError(INTERNAL_ERROR, "internal error, see the log"))
        return {"jsonrpc": "2.0", "id": identity, "result": result}

    def _dispatch(self, name: Json, params: Json) -> Json:
        method = self._methods.get(name) if isinstance(name, str) else None
        if method is None:
            raise RpcError(METHOD_NOT_FOUND, f"the method {name} does not exist")
        if not isinstance(params, list):
            raise RpcError(INVALID_PARAMS, "params is a list")
        try:
            with self._lock:
                return method(*params)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise RpcError(INVALID_PARAMS, f"{name}: {error}") from error

    # Blocks

    def _header(self, at: Json) -> Any:
        """The header that a block number, tag or {blockNumber | blockHash} names."""
        if isinstance(at, dict):
            if "blockHash" in at:
                block = self._chain.block_by_hash(_bytes(at["blockHash"]))
                return _found(block, at).header
            at = at["blockNumber"]
        if at in _NEWEST:
            return self._chain.head
        return _found(self._chain.header(0 if at == "earliest" else int(at, 16)), at)

    def _state(self, at: Json) -> Any:
        return self._chain.state(self._header(at))

    def _get_block_by_number(self, at: Json, full: bool = False) -> Json:
        header = self._chain.head if at in _NEWEST else self._chain.header(0 if at == "earliest" else int(at, 16))
        return None if header is None else _block(self._chain.block(header), full)

    def _get_block_by_hash(self, block_hash: str, full: bool = False) -> Json:
        block = self._chain.block_by_hash(_bytes(block_hash))
        return None if block is None else _block(block, full)

    def _fee_history(self, count: str | int, newest: Json, percentiles: Json = None) -> Json:
        last = self._header(newest).block_number
        span = int(count, 16) if isinstance(count, str) else count
        headers = [self._header(hex(number)) for number in range(max(0, last - span + 1), last + 1)]
        return {
            "oldestBlock": hex(headers[0].block_number),
            "baseFeePerGas": [hex(header.base_fee_per_gas) for header in [*headers, headers[-1]]],
            "gasUsedRatio": [header.gas_used / header.gas_limit for header in headers],
            "reward": [["0x0"] * len(percentiles or ()) for _ in headers],
        }

    # Execution

    def _call(self, transaction: Json, at: Json = "latest", _overrides: Json = None) -> str:
        return _hex(self._chain.call(_as_call(transaction), self._header(at)))

    def _estimate_gas(self, transaction: Json, _at: Json = "latest") -> str:
        return hex(self._chain.estimate_gas(_as_call(transaction)))

    def _get_storage_at(self, address: str, slot: str, at: Json = "latest") -> str:
        return f"0x{self._state(at).get_storage(_bytes(address), int(slot, 16)):064x}"

    def _send(self, raw: str) -> str:
        return _hex(self._chain.send(_bytes(raw)))

    # Transactions and logs

    def _get_transaction(self, transaction_hash: str) -> Json:
        located = self._chain.locate(_bytes(transaction_hash))
        return None if located is None else _transaction(located.block, located.index)

    def _get_receipt(self, transaction_hash: str) -> Json:
        located = self._chain.locate(_bytes(transaction_hash))
        return None if located is None else _receipt(located)

    def _get_logs(self, wanted: Json) -> Json:
        addresses = _alternatives(wanted.get("address"))
        topics = [_alternatives(topic) for topic in wanted.get("topics") or ()]
        return [log for log in self._logs(wanted) if _matches(log, addresses, topics)]

    def _logs(self, wanted: Json) -> Iterator[dict[str, Json]]:
        if "blockHash" in wanted:
            first = last = self._header({"blockHash": wanted["blockHash"]}).block_number
        else:
            first = self._header(wanted.get("fromBlock") or "latest").block_number
            last = _last_block(wanted.get("toBlock") or "latest", self._chain.head.block_number)
        for block in self._chain.blocks_with_logs(first, last):
            yield from _block_logs(block, self._chain.receipts(block))


def failure(identity: Json, error: RpcError) -> dict[str, Json]:
    """A JSON-RPC answer that carries an error."""
    return {"jsonrpc": "2.0", "id": identity, "error": error.body}


def _hex(data: bytes) -> str:
    return "0x" + data.hex()


def _bytes(text: str) -> bytes:
    if not text.startswith("0x"):
        raise ValueError(f"not hex with 0x: {text[:80]!r}")
    return bytes.fromhex(text[2:])


def _found(value: Any | None, at: Json) -> Any:
    if value is None:
        raise RpcError(REFUSED, f"no block {at}")
    return value


def _last_block(at: str, head: int) -> int:
    if at in _NEWEST:
        return head
    return 0 if at == "earliest" else min(head, int(at, 16))


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


def _matches(log: dict[str, Json], addresses: set[str] | None, topics: list[set[str] | None]) -> bool:
    if addresses is not None and log["address"] not in addresses:
        return False
    if len(log["topics"]) < len(topics):
        return False
    return all(wanted is None or topic in wanted for topic, wanted in zip(log["topics"], topics, strict=False))


def _block_logs(block: Any, receipts: tuple[Any, ...]) -> Iterator[dict[str, Json]]:
    position = 0
    for index, receipt in enumerate(receipts):
        for log in receipt.logs:
            yield {
                "address": _hex(log.address),
                "topics": [f"0x{topic:064x}" for topic in log.topics],
                "data": _hex(log.data),
                "blockNumber": hex(block.number),
                "blockHash": _hex(block.hash),
                "transactionHash": _hex(block.transactions[index].hash),
                "transactionIndex": hex(index),
                "logIndex": hex(position),
                "removed": False,
            }
            position += 1


def _block(block: Any, full: bool) -> dict[str, Json]:
    header = block.header
    transactions = [
        _transaction(block, index) if full else _hex(transaction.hash)
        for index, transaction in enumerate(block.transactions)
    ]
    return {
        "number": hex(header.block_number),
        "hash": _hex(header.hash),
        "parentHash": _hex(header.parent_hash),
        "nonce": _hex(header.nonce),
        "sha3Uncles": _hex(header.uncles_hash),
        "logsBloom": f"0x{header.bloom:0512x}",
        "transactionsRoot": _hex(header.transaction_root),
        "receiptsRoot": _hex(header.receipt_root),
        "stateRoot": _hex(header.state_root),
        "miner": _hex(header.coinbase),
        "difficulty": hex(header.difficulty),
        "totalDifficulty": hex(header.difficulty),
        "mixHash": _hex(header.mix_hash),
        "size": hex(len(rlp.encode(block))),
        "extraData": _hex(header.extra_data),
        "gasLimit": hex(header.gas_limit),
        "gasUsed": hex(header.gas_used),
        "timestamp": hex(header.timestamp),
        "baseFeePerGas": hex(header.base_fee_per_gas),
        "transactions": transactions,
        "uncles": [],
    }


def _transaction(block: Any, index: int) -> dict[str, Json]:
    transaction = block.transactions[index]
    kind = transaction.type_id or 0  # None: from before there were types
    fields = {
        "type": hex(kind),
        "hash": _hex(transaction.hash),
        "nonce": hex(transaction.nonce),
        "blockHash": _hex(block.hash),
        "blockNumber": hex(block.number),
        "transactionIndex": hex(index),
        "chainId": hex(transaction.chain_id),
        "from": _hex(transaction.sender),
        "to": _hex(transaction.to) if transaction.to else None,
        "value": hex(transaction.value),
        "gas": hex(transaction.gas),
        "gasPrice": hex(_price(transaction, block)),
        "input": _hex(transaction.data),
        "v": hex(transaction.y_parity if kind else transaction.v),
        "r": hex(transaction.r),
        "s": hex(transaction.s),
    }
    if kind >= 2:
        fields["maxFeePerGas"] = hex(transaction.max_fee_per_gas)
        fields["maxPriorityFeePerGas"] = hex(transaction.max_priority_fee_per_gas)
    return fields


def _price(transaction: Any, block: Any) -> int:
    """What a unit of gas cost: base fee and tip, at most the transaction's maximum (EIP-1559)."""
    base = block.header.base_fee_per_gas
    return int(min(transaction.max_fee_per_gas, base + transaction.max_priority_fee_per_gas))


def _receipt(located: Located) -> dict[str, Json]:
    block, index, transaction = located.block, located.index, located.transaction
    receipt = located.receipts[index]
    before = located.receipts[index - 1].gas_used if index else 0
    logs = [log for log in _block_logs(block, located.receipts) if log["transactionHash"] == _hex(transaction.hash)]
    return {
        "transactionHash": _hex(transaction.hash),
        "transactionIndex": hex(index),
        "blockHash": _hex(block.hash),
        "blockNumber": hex(block.number),
        "from": _hex(transaction.sender),
        "to": _hex(transaction.to) if transaction.to else None,
        "contractAddress": None if transaction.to else _hex(created(transaction.sender, transaction.nonce)),
        "type": hex(transaction.type_id or 0),
        "status": hex(int.from_bytes(receipt.state_root, "big")),
        "cumulativeGasUsed": hex(receipt.gas_used),
        "gasUsed": hex(receipt.gas_used - before),
        "effectiveGasPrice": hex(_price(transaction, block)),
        "logs": logs,
        "logsBloom": f"0x{receipt.bloom:0512x}",
    }
