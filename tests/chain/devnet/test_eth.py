"""The eth_ methods, as web3 libraries and explorers see them."""

from collections.abc import Iterator
from typing import Any

import pytest
from eth_hash.auto import keccak
from hypothesis import given
from hypothesis import strategies as st

from chain.devnet.accounts import CHAIN_IDS
from chain.devnet.eth import _matches, hexadecimal
from tests.chain.devnet.ledger_chain import ABI, OWNER, RUNS, LedgerChain, signed

pytestmark = pytest.mark.chain
POOR = "0x" + "33" * 20


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LedgerChain]:
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


def test_the_node_has_no_accounts_no_peers_and_wants_no_tip(chain: LedgerChain) -> None:
    answers = [chain.result(f"eth_{name}") for name in ("accounts", "syncing", "maxPriorityFeePerGas", "chainId")]
    assert answers == [[], False, "0x0", hex(CHAIN_IDS["public"])]


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


def test_an_account_is_seen_after_any_block(chain: LedgerChain) -> None:
    counts = [int(chain.result("eth_getTransactionCount", OWNER.address, hex(number)), 16) for number in range(6)]
    assert counts == list(range(6))
    assert int(chain.result("eth_getBalance", OWNER.address), 16) > 0
    assert chain.result("eth_getBalance", POOR) == "0x0"
    assert chain.result("eth_getCode", chain.ledger, "0x0") == "0x"
    assert len(chain.result("eth_getCode", chain.ledger)) > 1000
    assert chain.result("eth_getStorageAt", POOR, "0x0") == "0x" + "00" * 32


@pytest.mark.parametrize("at", ["latest", "pending", "safe", "finalized"])
def test_every_tag_but_earliest_is_the_newest_block(chain: LedgerChain, at: str) -> None:
    newest = chain.result("eth_blockNumber")
    assert chain.result("eth_getBlockByNumber", at)["number"] == newest
    assert chain.result("eth_getBlockByNumber", "earliest")["number"] == "0x0"
    block = chain.result("eth_getBlockByNumber", newest)
    for where in ({"blockNumber": newest}, {"blockHash": block["hash"]}):
        assert chain.result("eth_getTransactionCount", OWNER.address, where) == hex(chain.nonce)


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


def test_a_receipt_names_the_contract_that_was_created(chain: LedgerChain) -> None:
    (creation,) = chain.result("eth_getBlockByNumber", "0x1")["transactions"]
    receipt = chain.result("eth_getTransactionReceipt", creation)
    assert (receipt["contractAddress"], receipt["to"], receipt["status"]) == (chain.ledger, None, "0x1")


def test_a_transaction_of_the_old_kind_has_one_price(chain: LedgerChain) -> None:
    price = 3 * 10**9
    fields = {"maxFeePerGas": None, "maxPriorityFeePerGas": None, "gasPrice": price, "gas": 21_000}
    raw = signed(chain.nonce, POOR, **fields)
    chain.nonce += 1
    hashed = chain.result("eth_sendRawTransaction", hexadecimal(raw))
    mined = chain.result("eth_getTransactionByHash", hashed)
    assert (mined["type"], mined["gasPrice"], "maxFeePerGas" in mined) == ("0x0", hex(price), False)
    assert chain.result("eth_getTransactionReceipt", hashed)["type"] == "0x0"


def test_the_fee_history_goes_one_block_beyond(chain: LedgerChain) -> None:
    history = chain.result("eth_feeHistory", "0x2", "0x4", [50])
    assert history["oldestBlock"] == "0x3"
    assert (len(history["baseFeePerGas"]), len(history["gasUsedRatio"])) == (3, 2)
    assert history["reward"] == [["0x0"], ["0x0"]]
    assert chain.result("eth_feeHistory", 100, "0x4")["oldestBlock"] == "0x0"


def test_storage_is_read_by_slot(chain: LedgerChain) -> None:
    slots = [chain.result("eth_getStorageAt", chain.ledger, hex(slot)) for slot in range(8)]
    assert any(int(slot, 16) for slot in slots)
    assert all(len(slot) == 66 for slot in slots)


TOPICS = st.lists(st.sampled_from("abc"), max_size=4)


@given(TOPICS, TOPICS)
def test_a_filter_of_single_topics_matches_their_beginning(topics: list[str], wanted: list[str]) -> None:
    assert _matches(topics, [{topic} for topic in wanted]) == (topics[: len(wanted)] == wanted)


@given(TOPICS, st.integers(0, 4))
def test_an_open_position_matches_any_topic_but_none_that_is_missing(topics: list[str], length: int) -> None:
    assert _matches(topics, [None] * length) == (length <= len(topics))
