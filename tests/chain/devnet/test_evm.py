"""The embedded chain and its JSON-RPC, in this process."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from eth_abi.abi import encode
from eth_account import Account
from eth_hash.auto import keccak
from web3 import Web3

from chain import artefacts
from chain.devnet.accounts import CHAIN_IDS, FUNDS, administrator
from chain.devnet.evm import EmbeddedChain
from chain.devnet.rpc import JsonRpc

pytestmark = pytest.mark.chain
OWNER = administrator()
ALLOC = {bytes.fromhex(OWNER.address[2:]): FUNDS}
POOR = "0x" + "33" * 20
ABI = Web3().eth.contract(abi=artefacts.load("PublicLedger").abi)
RUNS = [bytes([number]) * 32 for number in range(1, 4)]
COORDINATOR_ROLE = keccak(b"COORDINATOR_ROLE")


class Chain:
    """A chain with a ledger whose administrator is also its coordinator."""

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
        call = {"from": OWNER.address, "data": data} | ({"to": to} if to else {})
        fields = {
            "to": Web3.to_checksum_address(to) if to else b"",
            "data": data,
            "value": 0,
            "gas": gas or int(self.result("eth_estimateGas", call), 16),
            "maxFeePerGas": 2 * 10**9,
            "maxPriorityFeePerGas": 0,
            "nonce": self.nonce,
            "chainId": CHAIN_IDS["public"],
        }
        raw = Account.sign_transaction(fields, OWNER.secret).raw_transaction
        self.nonce += 1
        return self.result("eth_getTransactionReceipt", self.result("eth_sendRawTransaction", "0x" + raw.hex()))


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    chain = Chain(tmp_path_factory.mktemp("evm") / "chain.sqlite")
    yield chain
    chain.evm.close()


def test_the_same_transactions_at_the_same_times_make_the_same_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chain.devnet.evm.time.time", lambda: 1_800_000_000.0)
    chains = [Chain(tmp_path / name / "chain.sqlite") for name in ("one", "two")]
    assert chains[0].evm.head.block_number == 5
    assert chains[0].evm.head.hash == chains[1].evm.head.hash
    for chain in chains:
        chain.evm.close()


def test_time_never_stands_still_or_goes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chain.devnet.evm.time.time", lambda: 0.0)
    chain = Chain(tmp_path / "chain.sqlite")
    times = [chain.evm.header(number).timestamp for number in range(6)]  # type: ignore[union-attr]  # they exist
    assert times == sorted(set(times))
    chain.evm.close()


def test_a_revert_carries_the_custom_error_and_its_arguments(chain: Chain) -> None:
    data = ABI.encode_abi("openRun", [RUNS[0], [OWNER.address]])
    call = {"from": OWNER.address, "to": chain.ledger, "data": data}
    expected = "0x" + (keccak(b"RunAlreadyOpen(bytes32)")[:4] + RUNS[0]).hex()
    for method in ("eth_call", "eth_estimateGas"):
        error = chain.ask(method, call)["error"]
        assert (error["code"], error["data"]) == (3, expected)


def test_a_reverting_transaction_is_mined_with_status_0(chain: Chain) -> None:
    receipt = chain.mined(chain.ledger, ABI.encode_abi("openRun", [RUNS[0], [OWNER.address]]), gas=100_000)
    assert receipt["status"] == "0x0"


def test_estimated_gas_is_enough_and_little_more_than_what_is_used(chain: Chain) -> None:
    data = ABI.encode_abi("openRun", [b"\xee" * 32, [OWNER.address]])
    estimate = int(chain.result("eth_estimateGas", {"from": OWNER.address, "to": chain.ledger, "data": data}), 16)
    receipt = chain.mined(chain.ledger, data, gas=estimate)
    assert receipt["status"] == "0x1"
    assert int(receipt["gasUsed"], 16) <= estimate <= int(receipt["gasUsed"], 16) * 1.05


def test_anybody_calls_free_of_charge(chain: Chain) -> None:
    data = ABI.encode_abi("getRun", [RUNS[0]])
    for sender in ({}, {"from": POOR}):
        answer = chain.result("eth_call", {**sender, "to": chain.ledger, "input": data}, "latest")
        assert answer[26:66] == OWNER.address[2:].lower()


def test_a_call_with_value_needs_funds(chain: Chain) -> None:
    assert "error" in chain.ask("eth_call", {"from": POOR, "to": POOR, "value": "0x1"})


def test_state_of_an_earlier_block_can_be_asked_for(chain: Chain) -> None:
    data = ABI.encode_abi("getRun", [RUNS[2]])
    before = chain.result("eth_call", {"to": chain.ledger, "data": data}, "0x4")
    after = chain.result("eth_call", {"to": chain.ledger, "data": data}, "0x5")
    assert int(before, 16) == 0 != int(after, 16)


OPENED = "0x" + keccak(b"RunOpened(bytes32,address,bytes32,address[])").hex()


@pytest.mark.parametrize(
    ("choice", "found"),
    [
        ({"topics": [OPENED]}, [1, 2, 3]),
        ({"topics": [OPENED, "0x" + RUNS[1].hex()]}, [2]),
        ({"topics": [OPENED, ["0x" + RUNS[0].hex(), "0x" + RUNS[2].hex()]]}, [1, 3]),
        ({"topics": [None, "0x" + RUNS[0].hex()]}, [1]),
        ({"topics": [OPENED], "toBlock": "0x4"}, [1, 2]),
        ({"topics": [OPENED], "fromBlock": "0x5"}, [3]),
        ({"topics": [OPENED], "address": POOR}, []),
        ({"topics": [OPENED, None, None, None]}, []),
        ({"topics": ["0x" + "00" * 32]}, []),
    ],
)
def test_logs_are_found_by_address_topics_and_blocks(chain: Chain, choice: dict[str, Any], found: list[int]) -> None:
    wanted = {"fromBlock": "earliest", "toBlock": "0x5", "address": chain.ledger} | choice
    logs = chain.result("eth_getLogs", wanted)
    assert [int(log["topics"][1][-2:], 16) for log in logs] == found
    assert all(log["address"] == chain.ledger for log in logs)


def test_logs_of_one_block_are_found_by_its_hash(chain: Chain) -> None:
    block = chain.result("eth_getBlockByNumber", "0x4", True)
    (log,) = chain.result("eth_getLogs", {"blockHash": block["hash"]})
    assert log["transactionHash"] == block["transactions"][0]["hash"]
    assert chain.result("eth_getBlockByHash", block["hash"], True) == block


def test_what_does_not_exist_is_null(chain: Chain) -> None:
    nothing = "0x" + "77" * 32
    assert chain.result("eth_getTransactionByHash", nothing) is None
    assert chain.result("eth_getTransactionReceipt", nothing) is None
    assert chain.result("eth_getBlockByHash", nothing) is None
    assert chain.result("eth_getBlockByNumber", "0xffff") is None


def test_a_batch_is_answered_in_order(chain: Chain) -> None:
    batch = [{"id": number, "method": method, "params": []} for number, method in enumerate(["eth_chainId", "nope"])]
    first, second = chain.rpc.answer(batch)
    assert (first["id"], first["result"]) == (0, hex(CHAIN_IDS["public"]))
    assert (second["id"], second["error"]["code"]) == (1, -32601)


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ("eth_chainId", -32600),
        ({"id": 1, "method": "eth_chainId", "params": {}}, -32602),
        ({"id": 1, "method": "eth_getBalance", "params": ["no address"]}, -32602),
        ({"id": 1, "method": "eth_getBalance", "params": []}, -32602),
        ({"id": 1, "method": None}, -32601),
        ({"id": 1, "method": "eth_sendRawTransaction", "params": ["0x03"]}, -32000),
    ],
)
def test_a_request_that_is_none_is_answered_with_its_fault(chain: Chain, request_: Any, code: int) -> None:
    assert chain.rpc.answer(request_)["error"]["code"] == code


def test_our_own_fault_is_logged_and_answered(
    chain: Chain, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_name: object, _params: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(chain.rpc, "_dispatch", fail)
    assert chain.ask("eth_chainId")["error"]["code"] == -32603
    assert "a bug" in capsys.readouterr().err
