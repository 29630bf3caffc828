"""The eth_ methods' values as the execution API specification writes them, over a chain with three blocks."""

from collections.abc import Iterator
from typing import Any

import pytest
from eth_account import Account
from eth_account.datastructures import SignedTransaction

from chain.addresses import create_address
from chain.devnet.accounts import CHAIN_IDS, FUNDS, administrator
from chain.devnet.evm import GENESIS_TIME, EmbeddedChain
from chain.devnet.rpc import INVALID_PARAMS, REFUSED, JsonRpc

pytestmark = pytest.mark.chain
OWNER = administrator()
SENDER = OWNER.address.lower()
SOMEONE = "0x" + "11" * 20
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
    chain = EmbeddedChain(tmp_path_factory.mktemp("rpc") / "chain", CHAIN_IDS["public"], alloc)
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
