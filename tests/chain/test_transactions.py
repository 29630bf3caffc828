"""Sending until the effect is there, against a node that mines, delays, loses or refuses as it is told."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from eth_abi.abi import encode
from eth_account import Account
from eth_hash.auto import keccak
from web3.exceptions import ContractLogicError, Web3RPCError

from chain.transactions import FEE_STEP, TRIES, Sender, explain
from core.errors import LedgerConflictError, LedgerError, LedgerUnreachableError
from core.keys import derive

KEY = derive(1, "coordinator")
REQUEST: Any = {"to": "0x" + "11" * 20, "data": "0x", "value": 0}
ERROR = {
    "type": "error",
    "name": "RoundNotNext",
    "inputs": [
        {"name": "got", "type": "uint32"},
        {"name": "next", "type": "uint32"},
        {"name": "run", "type": "bytes32"},
    ],
}
ABI: list[dict[str, Any]] = [{"type": "function", "name": "commit", "inputs": []}, ERROR]
SELECTOR = keccak(b"RoundNotNext(uint32,uint32,bytes32)")[:4]
REFUSAL = "0x" + (SELECTOR + encode(["uint32", "uint32", "bytes32"], [3, 2, b"\xab" * 32])).hex()


class Node:
    """What a Sender asks of a node. `mines`: how the n-th transaction fares; by default each is mined at once."""

    provider = SimpleNamespace(endpoint_uri="http://127.0.0.1:8545")

    def __init__(self, mines: Callable[[int], bool] = lambda _: True) -> None:
        self.eth = self
        self.chain_id = 31337
        self.max_priority_fee = 1_000_000_000
        self.mined = 5
        self.sent: list[dict[str, Any]] = []
        self._mines = mines

    def get_transaction_count(self, address: str, at: str) -> int:
        assert (address.lower(), at) == (KEY.address.lower(), "latest")
        return self.mined

    def estimate_gas(self, request: Any) -> int:
        assert request["from"].lower() == KEY.address.lower()
        return 100_000

    def get_block(self, at: str) -> dict[str, int]:
        return {"baseFeePerGas": 10_000_000_000}

    def send_raw_transaction(self, raw: bytes) -> None:
        self.sent.append(raw)  # type: ignore[arg-type]  # as bytes until `transactions` reads them
        self.mined += self._mines(len(self.sent))

    def effect(self) -> str | None:
        """The effect is there as soon as a transaction is mined."""
        return "done" if self.mined > 5 else None


def sender(node: Node) -> Sender:
    return Sender(node, KEY, ABI, patience=0.02)  # type: ignore[arg-type]  # a stand-in


@pytest.fixture
def prices(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Every transaction that is signed, in order."""
    seen: list[dict[str, Any]] = []
    sign = Account.sign_transaction

    def record(transaction: dict[str, Any], secret: bytes) -> Any:
        seen.append(transaction)
        return sign(transaction, secret)

    monkeypatch.setattr("chain.transactions.Account", SimpleNamespace(sign_transaction=record))
    return seen


def test_an_effect_that_is_there_already_sends_nothing() -> None:
    node = Node()
    assert sender(node).execute(REQUEST, lambda: "there", "a round") == "there"
    assert node.sent == []


def test_a_transaction_is_sent_once_with_nonce_chain_gas_and_fees(prices: list[dict[str, Any]]) -> None:
    node = Node()
    assert sender(node).execute(REQUEST, node.effect, "a round") == "done"
    assert prices == [
        {
            **REQUEST,
            "nonce": 5,
            "chainId": 31337,
            "gas": 120_000,
            "maxPriorityFeePerGas": 1_000_000_000,
            "maxFeePerGas": 21_000_000_001,
        }
    ]


def test_what_is_not_mined_is_replaced_with_the_same_nonce_for_more(prices: list[dict[str, Any]]) -> None:
    node = Node(lambda number: number == 3)
    assert sender(node).execute(REQUEST, node.effect, "a round") == "done"
    assert [price["nonce"] for price in prices] == [5, 5, 5]
    tips = [price["maxPriorityFeePerGas"] for price in prices]
    assert tips == [1_000_000_000, 1_250_000_000, 1_562_500_000]
    assert FEE_STEP >= 1.1  # what nodes demand of a replacement


def test_an_effect_without_its_own_transaction_counts() -> None:
    """Whoever was faster, the effect is there: nothing is sent a second time."""
    node = Node(lambda _: False)
    asked = iter([None, "of another"])
    assert sender(node).execute(REQUEST, lambda: next(asked), "a round") == "of another"
    assert len(node.sent) == 1


def test_what_is_never_mined_is_given_up_after_all_tries() -> None:
    node = Node(lambda _: False)
    with pytest.raises(LedgerUnreachableError, match="the eighth round"):
        sender(node).execute(REQUEST, node.effect, "the eighth round")
    assert len(node.sent) == TRIES


@pytest.mark.parametrize("message", ["already known", "nonce too low", "replacement transaction underpriced"])
def test_a_transaction_that_is_in_flight_already_is_waited_for(message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node()

    def send(_raw: bytes) -> None:
        node.mined += 1
        raise Web3RPCError(message, rpc_response={"error": {"code": -32000, "message": message}})  # type: ignore[typeddict-item]

    monkeypatch.setattr(node, "send_raw_transaction", send)
    assert sender(node).execute(REQUEST, node.effect, "a round") == "done"


def test_a_refusal_of_the_node_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node()

    def send(_raw: bytes) -> None:
        raise Web3RPCError("insufficient funds for gas")

    monkeypatch.setattr(node, "send_raw_transaction", send)
    with pytest.raises(LedgerError, match="insufficient funds for gas") as refused:
        sender(node).execute(REQUEST, node.effect, "a round")
    assert not isinstance(refused.value, LedgerUnreachableError)


def test_a_refusal_of_the_contract_names_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node()

    def estimate(_request: Any) -> int:
        raise ContractLogicError("execution reverted", data=REFUSAL)

    monkeypatch.setattr(node, "estimate_gas", estimate)
    with pytest.raises(LedgerConflictError, match=r"RoundNotNext\(got=3, next=2, run=0xabab"):
        sender(node).execute(REQUEST, node.effect, "a round")
    asked = iter([None, "of another"])
    assert sender(node).execute(REQUEST, lambda: next(asked), "a round") == "of another"
    assert node.sent == []


def test_a_node_that_does_not_answer_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node()

    def count(_address: str, _at: str) -> int:
        raise requests.ConnectionError

    monkeypatch.setattr(node, "get_transaction_count", count)
    with pytest.raises(LedgerUnreachableError, match=r"127\.0\.0\.1:8545.*a round"):
        sender(node).execute(REQUEST, node.effect, "a round")


def test_custom_errors_are_explained_with_their_arguments() -> None:
    error = ContractLogicError("execution reverted", data=REFUSAL)
    assert explain(error, ABI) == f"RoundNotNext(got=3, next=2, run=0x{'ab' * 32})"
    assert explain(ContractLogicError("execution reverted: no", data="0x08c379a0"), ABI) == "execution reverted: no"
    assert explain(ContractLogicError("execution reverted"), ABI) == "execution reverted"
