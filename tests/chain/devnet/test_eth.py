"""The eth_ methods: values as the execution API specification writes them, calls, estimates and logs of a contract."""

from collections.abc import Iterator
from typing import Any

import pytest
from eth_account import Account
from eth_account.datastructures import SignedTransaction
from eth_hash.auto import keccak
from hypothesis import given
from hypothesis import strategies as st

from chain.addresses import create_address
from chain.devnet.accounts import CHAIN_IDS, FUNDS, administrator
from chain.devnet.eth import _matches
from chain.devnet.evm import GENESIS_TIME, EmbeddedChain
from chain.devnet.rpc import INVALID_PARAMS, REFUSED, JsonRpc
from tests.chain.devnet.ledger_chain import ABI, RUNS, LedgerChain

pytestmark = pytest.mark.chain
OWNER = administrator()
SENDER = OWNER.address.lower()
SOMEONE = "0x" + "11" * 20
POOR = "0x" + "33" * 20
# Creation code of a contract of one byte, which is 00 (STOP): PUSH1 1, PUSH1 0, RETURN.
STOP = "0x60016000f3"
PRICE = 2 * 10**9


def signed(**changes: Any) -> SignedTransaction:
    fields = {"to": SOMEONE, "value": 1, "gas": 100_000, "nonce": 0, "chainId": CHAIN_IDS["public"]}
    fees = {} if "gasPrice" in changes else {"maxFeePerGas": PRICE, "maxPriorityFeePerGas": 0}
    return Account.sign_transaction(fields | fees | changes, OWNER.secret)


@pytest.fixture(scope="module")
def rpc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JsonRpc]:
    """Block 1: a wei sent with fees of today; 2: one with a gas price; 3: a contract."""
    alloc = {bytes.fromhex(SENDER[2:]): FUNDS}
    chain = EmbeddedChain(tmp_path_factory.mktemp("rpc") / "chain.sqlite", CHAIN_IDS["public"], alloc)
    rpc = JsonRpc(chain)
    for transaction in (signed(), signed(nonce=1, gasPrice=PRICE), signed(nonce=2, to=b"", value=0, data=STOP)):
        assert "result" in ask(rpc, "eth_sendRawTransaction", "0x" + transaction.raw_transaction.hex())
    yield rpc
    chain.close()


def ask(rpc: JsonRpc, method: str, *params: Any) -> Any:
    return rpc.answer({"jsonrpc": "2.0", "id": 7, "method": method, "params": list(params)})


def result(rpc: JsonRpc, method: str, *params: Any) -> Any:
    answer = ask(rpc, method, *params)
    assert answer.keys() == {"jsonrpc", "id", "result"}, answer
    return answer["result"]


@pytest.mark.parametrize(
    ("method", "params", "value"),
    [
        ("eth_accounts", [], []),
        ("eth_blockNumber", [], "0x3"),
        ("eth_chainId", [], hex(CHAIN_IDS["public"])),
        ("eth_syncing", [], False),
        ("eth_maxPriorityFeePerGas", [], "0x0"),
        ("eth_getBalance", [SOMEONE], "0x2"),
        ("eth_getBalance", [SOMEONE, "pending"], "0x2"),
        ("eth_getBalance", [SOMEONE, "0x1"], "0x1"),
        ("eth_getBalance", [SOMEONE, "earliest"], "0x0"),
        ("eth_getBalance", [SENDER, "0x0"], hex(FUNDS)),
        ("eth_getTransactionCount", [SENDER], "0x3"),
        ("eth_getTransactionCount", [SENDER, {"blockNumber": "0x1"}], "0x1"),
        ("eth_getCode", [SOMEONE], "0x"),
        ("eth_getStorageAt", [SOMEONE, "0x0"], "0x" + "00" * 32),
        ("eth_estimateGas", [{"from": SENDER, "to": SOMEONE, "value": "0x1"}], None),
    ],
)
def test_values_are_written_as_the_specification_says(rpc: JsonRpc, method: str, params: list[Any], value: Any) -> None:
    answer = result(rpc, method, *params)
    if value is None:
        assert 21_000 <= int(answer, 16) <= 21_000 * 64 // 63 + 1
    else:
        assert answer == value


def test_a_created_contract_has_its_address_and_code(rpc: JsonRpc) -> None:
    block = result(rpc, "eth_getBlockByNumber", "0x3")
    receipt = result(rpc, "eth_getTransactionReceipt", block["transactions"][0])
    assert receipt["to"] is None
    assert receipt["contractAddress"] == "0x" + create_address(bytes.fromhex(SENDER[2:]), 2).hex()
    assert result(rpc, "eth_getCode", receipt["contractAddress"]) == "0x00"


def test_a_block_holds_its_transactions_as_hashes_or_in_full(rpc: JsonRpc) -> None:
    block, full = (result(rpc, "eth_getBlockByNumber", "0x1", whole) for whole in (False, True))
    sent = signed()
    assert block["transactions"] == ["0x" + sent.hash.hex()] == [full["transactions"][0]["hash"]]
    assert block["number"] == "0x1"
    assert int(block["timestamp"], 16) > GENESIS_TIME
    assert block["gasUsed"] == hex(21_000)
    assert result(rpc, "eth_getBlockByHash", block["hash"]) == block
    assert block["parentHash"] == result(rpc, "eth_getBlockByNumber", "earliest")["hash"]
    assert result(rpc, "eth_getBlockByNumber", "latest")["number"] == "0x3"


def test_a_transaction_is_told_with_its_kind_s_fees(rpc: JsonRpc) -> None:
    modern = result(rpc, "eth_getTransactionByHash", "0x" + signed().hash.hex())
    legacy = result(rpc, "eth_getTransactionByHash", "0x" + signed(nonce=1, gasPrice=PRICE).hash.hex())
    assert (modern["type"], modern["maxFeePerGas"], modern["maxPriorityFeePerGas"]) == ("0x2", hex(PRICE), "0x0")
    assert (legacy["type"], legacy["gasPrice"]) == ("0x0", hex(PRICE))
    assert "maxFeePerGas" not in legacy
    for transaction, block in ((modern, "0x1"), (legacy, "0x2")):
        assert (transaction["from"], transaction["to"], transaction["value"]) == (SENDER, SOMEONE, "0x1")
        assert (transaction["blockNumber"], transaction["transactionIndex"]) == (block, "0x0")


def test_a_receipt_says_what_a_transaction_cost(rpc: JsonRpc) -> None:
    legacy = result(rpc, "eth_getTransactionReceipt", "0x" + signed(nonce=1, gasPrice=PRICE).hash.hex())
    receipt = result(rpc, "eth_getTransactionReceipt", "0x" + signed().hash.hex())
    assert (receipt["type"], legacy["type"]) == ("0x2", "0x0")
    assert (receipt["status"], receipt["gasUsed"], receipt["logs"]) == ("0x1", hex(21_000), [])
    base = result(rpc, "eth_getBlockByNumber", "0x1")["baseFeePerGas"]
    assert receipt["effectiveGasPrice"] == base  # without a tip


def test_a_legacy_transaction_has_a_receipt(rpc: JsonRpc) -> None:
    receipt = result(rpc, "eth_getTransactionReceipt", "0x" + signed(nonce=1, gasPrice=PRICE).hash.hex())
    assert (receipt["type"], receipt["status"], receipt["effectiveGasPrice"]) == ("0x0", "0x1", hex(PRICE))
    assert receipt["blockNumber"] == "0x2"


def test_the_fee_history_has_a_base_fee_more_than_blocks(rpc: JsonRpc) -> None:
    history = result(rpc, "eth_feeHistory", "0x2", "latest", [50])
    assert history["oldestBlock"] == "0x2"
    assert len(history["baseFeePerGas"]) == 3
    assert history["reward"] == [["0x0"], ["0x0"]]
    assert result(rpc, "eth_feeHistory", 99, "0x1")["oldestBlock"] == "0x0"


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("eth_getBalance", [], INVALID_PARAMS),
        ("eth_getBalance", ["11" * 20], INVALID_PARAMS),
        ("eth_getBalance", [SOMEONE, "0x4"], REFUSED),
        ("eth_getBalance", [SOMEONE, {"blockHash": "0x" + "77" * 32}], REFUSED),
        ("eth_sendRawTransaction", ["0x1234"], REFUSED),
        ("eth_sendRawTransaction", ["0x" + signed(nonce=9).raw_transaction.hex()], REFUSED),
    ],
)
def test_a_request_that_cannot_be_answered_has_its_error_s_code(
    rpc: JsonRpc, method: str, params: list[Any], code: int
) -> None:
    answer = ask(rpc, method, *params)
    assert answer.keys() == {"jsonrpc", "id", "error"}
    assert (answer["id"], answer["error"]["code"]) == (7, code)


# A contract


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LedgerChain]:
    """A chain with a ledger and three runs on it."""
    chain = LedgerChain(tmp_path_factory.mktemp("eth") / "chain.sqlite")
    yield chain
    chain.evm.close()


def test_methods_have_the_names_of_the_specification(chain: LedgerChain) -> None:
    expected = {
        "accounts", "blockNumber", "call", "chainId", "estimateGas", "feeHistory", "gasPrice", "getBalance",
        "getBlockByHash", "getBlockByNumber", "getCode", "getLogs", "getStorageAt", "getTransactionByHash",
        "getTransactionCount", "getTransactionReceipt", "maxPriorityFeePerGas", "sendRawTransaction", "syncing",
    }  # fmt: skip
    assert {name for name in chain.rpc._methods if name.startswith("eth_")} == {f"eth_{name}" for name in expected}


def test_a_revert_carries_the_custom_error_and_its_arguments(chain: LedgerChain) -> None:
    data = ABI.encode_abi("openRun", [RUNS[0], [OWNER.address]])
    call = {"from": OWNER.address, "to": chain.ledger, "data": data}
    expected = "0x" + (keccak(b"RunAlreadyOpen(bytes32)")[:4] + RUNS[0]).hex()
    for method in ("eth_call", "eth_estimateGas"):
        error = chain.ask(method, call)["error"]
        assert (error["code"], error["data"]) == (3, expected)


def test_a_reverting_transaction_is_mined_with_status_0(chain: LedgerChain) -> None:
    receipt = chain.mined(chain.ledger, ABI.encode_abi("openRun", [RUNS[0], [OWNER.address]]), gas=100_000)
    assert receipt["status"] == "0x0"


def test_estimated_gas_is_enough_and_little_more_than_what_is_used(chain: LedgerChain) -> None:
    data = ABI.encode_abi("openRun", [b"\xee" * 32, [OWNER.address]])
    estimate = int(chain.result("eth_estimateGas", {"from": OWNER.address, "to": chain.ledger, "data": data}), 16)
    receipt = chain.mined(chain.ledger, data, gas=estimate)
    assert receipt["status"] == "0x1"
    assert int(receipt["gasUsed"], 16) <= estimate <= int(receipt["gasUsed"], 16) * 1.05


def test_anybody_calls_free_of_charge(chain: LedgerChain) -> None:
    data = ABI.encode_abi("getRun", [RUNS[0]])
    for sender in ({}, {"from": POOR}):
        answer = chain.result("eth_call", {**sender, "to": chain.ledger, "input": data}, "latest")
        assert answer[26:66] == OWNER.address[2:].lower()


def test_a_call_with_value_needs_funds(chain: LedgerChain) -> None:
    assert "error" in chain.ask("eth_call", {"from": POOR, "to": POOR, "value": "0x1"})


def test_state_of_an_earlier_block_can_be_asked_for(chain: LedgerChain) -> None:
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
def test_logs_are_found_by_address_topics_and_blocks(
    chain: LedgerChain, choice: dict[str, Any], found: list[int]
) -> None:
    wanted = {"fromBlock": "earliest", "toBlock": "0x5", "address": chain.ledger} | choice
    logs = chain.result("eth_getLogs", wanted)
    assert [int(log["topics"][1][-2:], 16) for log in logs] == found
    assert all(log["address"] == chain.ledger for log in logs)


def test_logs_of_one_block_are_found_by_its_hash(chain: LedgerChain) -> None:
    block = chain.result("eth_getBlockByNumber", "0x4", True)
    (log,) = chain.result("eth_getLogs", {"blockHash": block["hash"]})
    assert log["transactionHash"] == block["transactions"][0]["hash"]
    assert chain.result("eth_getBlockByHash", block["hash"], True) == block


def test_what_does_not_exist_is_null(chain: LedgerChain) -> None:
    nothing = "0x" + "77" * 32
    assert chain.result("eth_getTransactionByHash", nothing) is None
    assert chain.result("eth_getTransactionReceipt", nothing) is None
    assert chain.result("eth_getBlockByHash", nothing) is None
    assert chain.result("eth_getBlockByNumber", "0xffff") is None


def test_blocks_name_their_parents_and_their_transactions(chain: LedgerChain) -> None:
    blocks = [chain.result("eth_getBlockByNumber", hex(number)) for number in range(4)]
    assert [block["parentHash"] for block in blocks[1:]] == [block["hash"] for block in blocks[:-1]]
    for block in blocks[1:]:
        (transaction,) = block["transactions"]
        mined = chain.result("eth_getTransactionByHash", transaction)
        receipt = chain.result("eth_getTransactionReceipt", transaction)
        assert (mined["blockHash"], mined["transactionIndex"]) == (block["hash"], "0x0")
        assert receipt["gasUsed"] == receipt["cumulativeGasUsed"] == block["gasUsed"]
        assert receipt["effectiveGasPrice"] == mined["gasPrice"] == block["baseFeePerGas"]
        assert mined["from"] == receipt["from"] == OWNER.address.lower()


TOPICS = st.lists(st.sampled_from("abc"), max_size=4)


@given(TOPICS, TOPICS)
def test_a_filter_of_single_topics_matches_their_beginning(topics: list[str], wanted: list[str]) -> None:
    assert _matches(topics, [{topic} for topic in wanted]) == (topics[: len(wanted)] == wanted)


@given(TOPICS, st.integers(0, 4))
def test_an_open_position_matches_any_topic_but_none_that_is_missing(topics: list[str], length: int) -> None:
    assert _matches(topics, [None] * length) == (length <= len(topics))
