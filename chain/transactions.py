"""Sending a transaction so that its effect happens exactly once.

A transaction may be mined although its sender never heard so: the process was killed, the connection broke, a node
dropped or delayed it. So nothing here believes a send: `execute` asks the contract whether the effect is there, and
sends only while it is not. It always uses the account's next nonce, which replaces what is stuck there and fills gaps;
each try pays more, as nodes demand of a replacement. What is sent twice is refused by the contract the second time.
"""

import re
import threading
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

from eth_abi.abi import decode
from eth_account import Account
from eth_hash.auto import keccak
from eth_utils.address import to_checksum_address
from web3 import Web3
from web3.exceptions import ContractLogicError, Web3RPCError
from web3.types import TxParams

from chain.nodes import reaching, refusal_of
from core.errors import LedgerConflictError, LedgerError, LedgerUnreachableError
from core.keys import Key

PATIENCE_SECONDS: Final = 30.0
TRIES: Final = 5
GAS_MARGIN: Final = 1.2
FEE_STEP: Final = 1.25
"""Nodes replace a waiting transaction only for at least a tenth more."""
_IN_FLIGHT: Final = re.compile(r"already known|already imported|nonce too low|underpriced|transaction nonce", re.I)

T = TypeVar("T")


class Sender:
    """An account that sends transactions over a node, one at a time: two threads would take the same nonce."""

    def __init__(self, node: Web3, key: Key, abi: list[dict[str, Any]], patience: float = PATIENCE_SECONDS) -> None:
        """`abi` names the errors; `patience`: seconds until a transaction that is not mined is replaced."""
        self._node = node
        self._key = key
        self._abi = abi
        self._patience = patience
        self._sending = threading.Lock()
        self.address = to_checksum_address(key.address)

    def execute(self, request: TxParams, effect: Callable[[], T | None], purpose: str) -> T:
        """Send `request` (to, data, value) until `effect` returns something, and return that.

        Messages name the `purpose`.

        Raises LedgerConflictError when the contract refuses, LedgerUnreachableError when nothing answers or nothing
        is mined, LedgerError when the node does not take the transaction (no funds).
        """
        with self._sending, reaching(self._node, purpose):
            for attempt in range(TRIES):
                if (result := effect()) is not None:
                    return result
                try:
                    self._send(request, attempt)
                except LedgerConflictError:
                    # Refused, perhaps because a transaction in flight was faster.
                    if (result := effect()) is not None:
                        return result
                    raise
            if (result := effect()) is not None:
                return result
        seconds = round(TRIES * self._patience)
        raise LedgerUnreachableError(f"the transaction for {purpose} was not mined within {seconds} s")

    def _send(self, request: TxParams, attempt: int) -> None:
        """Sign and send with the next nonce; return when that nonce is used up, or after the patience."""
        nonce = self._node.eth.get_transaction_count(self.address, "latest")
        transaction = self._priced(request, nonce, FEE_STEP**attempt)
        signed = Account.sign_transaction(transaction, self._key.secret)
        try:
            self._node.eth.send_raw_transaction(signed.raw_transaction)
        except Web3RPCError as error:
            message = refusal_of(error)
            if not _IN_FLIGHT.search(message):
                raise LedgerError(f"the node refuses a transaction of {self.address}: {message}") from error
        deadline = time.monotonic() + self._patience
        pause = 0.01
        while self._node.eth.get_transaction_count(self.address, "latest") <= nonce and time.monotonic() < deadline:
            time.sleep(pause)
            # Embedded chains mine at once, others every few seconds.
            pause = min(2 * pause, 1.0)

    def _priced(self, request: TxParams, nonce: int, factor: float) -> dict[str, Any]:
        """A transaction with gas and fees; nothing is left for the library to guess."""
        try:
            gas = self._node.eth.estimate_gas({**request, "from": self.address})
        except ContractLogicError as error:
            raise LedgerConflictError(f"the contract refuses: {explain(error, self._abi)}") from error
        block = self._node.eth.get_block("latest")
        tip = int(self._node.eth.max_priority_fee * factor)
        return {
            **request,
            "nonce": nonce,
            "chainId": self._node.eth.chain_id,
            "gas": int(gas * GAS_MARGIN),
            "maxPriorityFeePerGas": tip,
            # The base fee can rise by an eighth a block: twice the present one lasts for five full blocks.
            "maxFeePerGas": int(2 * block["baseFeePerGas"] * factor) + tip + 1,
        }


def explain(error: ContractLogicError, abi: list[dict[str, Any]]) -> str:
    """A custom error with its arguments by name, for example ``RoundNotNext(got=3, expected=2)``."""
    data = bytes.fromhex(error.data[2:]) if isinstance(error.data, str) else b""
    for entry in abi:
        if entry["type"] != "error":
            continue
        types = [argument["type"] for argument in entry["inputs"]]
        if keccak(f"{entry['name']}({','.join(types)})".encode())[:4] == data[:4]:
            names = [argument["name"] for argument in entry["inputs"]]
            values = ("0x" + value.hex() if isinstance(value, bytes) else value for value in decode(types, data[4:]))
            return f"{entry['name']}({', '.join(f'{n}={v}' for n, v in zip(names, values, strict=True))})"
    return str(error.message or error)
