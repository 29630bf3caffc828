"""An embedded chain with a ledger on it, asked through its JSON-RPC."""

from pathlib import Path
from typing import Any

from eth_abi.abi import encode
from eth_account import Account
from eth_hash.auto import keccak
from web3 import Web3

from chain import artefacts
from chain.devnet.accounts import CHAIN_IDS, FUNDS, administrator
from chain.devnet.evm import EmbeddedChain
from chain.devnet.rpc import JsonRpc

OWNER = administrator()
ALLOC = {bytes.fromhex(OWNER.address[2:]): FUNDS}
ABI = Web3().eth.contract(abi=artefacts.load("PublicLedger").abi)
RUNS = [bytes([number]) * 32 for number in range(1, 4)]
COORDINATOR_ROLE = keccak(b"COORDINATOR_ROLE")


def signed(nonce: int, to: str | None, data: str = "", **fields: Any) -> bytes:
    """A transaction of the owner; a field that is None is left out."""
    transaction = {
        "to": Web3.to_checksum_address(to) if to else b"",
        "data": data,
        "value": 0,
        "gas": 100_000,
        "maxFeePerGas": 2 * 10**9,
        "maxPriorityFeePerGas": 0,
        "nonce": nonce,
        "chainId": CHAIN_IDS["public"],
    }
    given = {name: value for name, value in (transaction | fields).items() if value is not None}
    return bytes(Account.sign_transaction(given, OWNER.secret).raw_transaction)


class LedgerChain:
    """A chain with a ledger whose administrator is also its coordinator, and a run in each of blocks 3 to 5."""

    def __init__(self, path: Path) -> None:
        self.evm = EmbeddedChain(path, CHAIN_IDS["public"], ALLOC)
        self.rpc = JsonRpc(self.evm)
        self.nonce = 0
        constructor = encode(["uint48", "address"], [0, OWNER.address]).hex()
        receipt = self.mined(None, artefacts.load("PublicLedger").bytecode + constructor)
        self.ledger = receipt["contractAddress"]
        self.mined(self.ledger, ABI.encode_abi("grantRole", [COORDINATOR_ROLE, OWNER.address]))
        for run in RUNS:
            self.mined(self.ledger, ABI.encode_abi("openRun", [run, [OWNER.address]]))

    def ask(self, method: str, *params: Any) -> Any:
        return self.rpc.answer({"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)})

    def result(self, method: str, *params: Any) -> Any:
        answer = self.ask(method, *params)
        assert "error" not in answer, answer
        return answer["result"]

    def mined(self, to: str | None, data: str, gas: int | None = None) -> Any:
        """The receipt of a transaction."""
        call = {"from": OWNER.address, "data": data} | ({"to": to} if to else {})
        gas = gas or int(self.result("eth_estimateGas", call), 16)
        raw = signed(self.nonce, to, data, gas=gas)
        self.nonce += 1
        return self.result("eth_getTransactionReceipt", self.result("eth_sendRawTransaction", "0x" + raw.hex()))
