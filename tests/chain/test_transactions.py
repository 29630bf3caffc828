"""Sending so that the effect happens exactly once, whatever becomes of transactions and answers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from eth_abi.abi import encode
from eth_hash.auto import keccak
from web3 import Web3
from web3.exceptions import ContractLogicError

from chain import artefacts
from chain.devnet.accounts import administrator
from chain.transactions import TRIES, Sender, explain
from core.errors import LedgerConflictError, LedgerError, LedgerUnreachableError
from core.keys import derive
from tests.chain.in_process import node_on, provider_of

pytestmark = pytest.mark.chain
OWNER = administrator()
ABI = artefacts.load("PublicLedger").abi
SOMEONE = Web3.to_checksum_address("0x" + "11" * 20)
GIFT: Any = {"to": SOMEONE, "value": 5}


@pytest.fixture
def node(tmp_path: Path) -> Web3:
    return node_on(tmp_path)


@pytest.fixture
def sender(node: Web3) -> Sender:
    return Sender(node, OWNER, ABI, patience=0.05)


def given(node: Web3) -> Callable[[], int | None]:
    """The effect of GIFT: its balance, once there is one."""
    return lambda: node.eth.get_balance(SOMEONE) or None


def sends(node: Web3) -> int:
    return provider_of(node).asked.count("eth_sendRawTransaction")


def test_an_effect_that_is_there_is_not_made_again(node: Web3, sender: Sender) -> None:
    assert sender.execute(GIFT, given(node), "a gift") == 5
    assert sender.execute(GIFT, given(node), "a gift") == 5
    assert sends(node) == 1


def test_an_effect_whose_answer_was_lost_is_not_made_again(node: Web3, sender: Sender) -> None:
    def lose_first(method: str, ask: Callable[[], Any]) -> Any:
        answer = ask()
        if method == "eth_sendRawTransaction":
            provider_of(node).around = lambda _method, ask: ask()
            return {"id": 1, "jsonrpc": "2.0", "error": {"code": -32000, "message": "already known"}}
        return answer

    provider_of(node).around = lose_first
    assert sender.execute(GIFT, given(node), "a gift") == 5
    assert sends(node) == 1


def test_a_transaction_that_is_not_mined_is_replaced_by_one_that_pays_more(node: Web3, sender: Sender) -> None:
    raw: list[bytes] = []

    def drop(method: str, ask: Callable[[], Any]) -> Any:
        if method == "eth_sendRawTransaction" and len(raw) < 2:
            raw.append(b"")
            return {"id": 1, "jsonrpc": "2.0", "result": "0x" + "00" * 32}
        return ask()

    provider_of(node).around = drop
    assert sender.execute(GIFT, given(node), "a gift") == 5
    mined: Any = node.eth.get_block("latest", full_transactions=True)["transactions"][0]
    base = node.eth.get_block(0)["baseFeePerGas"]
    assert mined["nonce"] == 0
    assert mined["maxFeePerGas"] >= int(2 * base * 1.25**2)
    assert node.eth.get_balance(SOMEONE) == 5


def test_a_transaction_that_is_never_mined_is_given_up(node: Web3, sender: Sender) -> None:
    def drop(method: str, ask: Callable[[], Any]) -> Any:
        dropped = {"id": 1, "jsonrpc": "2.0", "result": "0x" + "00" * 32}
        return dropped if method == "eth_sendRawTransaction" else ask()

    provider_of(node).around = drop
    with pytest.raises(LedgerUnreachableError, match="a gift was not mined"):
        sender.execute(GIFT, given(node), "a gift")
    assert sends(node) == TRIES


def test_a_refusal_of_a_transaction_that_another_one_was_faster_than_is_none(node: Web3, sender: Sender) -> None:
    """The contract refuses because the effect came between the question and the transaction."""
    data = ContractLogicError("execution reverted")

    def refuse(method: str, ask: Callable[[], Any]) -> Any:
        if method == "eth_estimateGas":
            effects.append(7)
            raise data
        return ask()

    effects: list[int] = []
    provider_of(node).around = refuse
    assert sender.execute(GIFT, lambda: effects[0] if effects else None, "a gift") == 7
    effects.clear()
    with pytest.raises(LedgerConflictError, match="the contract refuses"):
        sender.execute(GIFT, lambda: None, "a gift")


def test_an_account_without_funds_is_told_by_its_address(node: Web3) -> None:
    poor = derive(4, "poor")
    with pytest.raises(LedgerError, match=f"{poor.address}: insufficient funds"):
        Sender(node, poor, ABI, patience=0.05).execute(GIFT, lambda: None, "nothing")


def test_a_node_that_does_not_answer_is_named_with_the_purpose(node: Web3, sender: Sender) -> None:
    def refuse(_method: str, _ask: Callable[[], Any]) -> Any:
        raise requests.ConnectionError

    provider_of(node).around = refuse
    with pytest.raises(LedgerUnreachableError, match="a gift"):
        sender.execute(GIFT, given(node), "a gift")


def reverted(signature: str, kinds: list[str], *values: Any) -> ContractLogicError:
    return ContractLogicError(
        "execution reverted", data="0x" + (keccak(signature.encode())[:4] + encode(kinds, values)).hex()
    )


def test_a_custom_error_is_explained_with_its_arguments() -> None:
    assert (
        explain(reverted("RoundNotNext(uint32,uint32)", ["uint32"] * 2, 3, 2), ABI) == "RoundNotNext(got=3, expected=2)"
    )
    run = bytes(range(32))
    error = reverted("RunAlreadyOpen(bytes32)", ["bytes32"], run)
    assert explain(error, ABI) == f"RunAlreadyOpen(run=0x{run.hex()})"


@pytest.mark.parametrize("data", [None, "0x", "0x12345678"])
def test_an_error_that_the_abi_does_not_know_is_told_in_the_node_s_words(data: str | None) -> None:
    assert explain(ContractLogicError("out of gas", data=data), ABI) == "out of gas"
