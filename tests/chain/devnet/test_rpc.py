"""JSON-RPC 2.0: requests, batches and errors; test_eth.py has the methods."""

import threading
from pathlib import Path
from typing import Any

import pytest

from chain.devnet.accounts import CHAIN_IDS
from chain.devnet.evm import EmbeddedChain, InvalidTransactionError, RevertedError
from chain.devnet.rpc import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    REFUSED,
    REVERTED,
    JsonRpc,
    RpcError,
    failure,
)


@pytest.fixture(scope="module")
def rpc(tmp_path_factory: pytest.TempPathFactory) -> JsonRpc:
    return JsonRpc(EmbeddedChain(tmp_path_factory.mktemp("rpc") / "chain.sqlite", CHAIN_IDS["public"], {}))


def request(method: Any, *params: Any, **fields: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params), **fields}


def test_an_answer_carries_the_request_s_id(rpc: JsonRpc) -> None:
    for identity in (7, "seven", None):
        answer = rpc.answer(request("eth_chainId", id=identity))
        assert answer == {"jsonrpc": "2.0", "id": identity, "result": hex(CHAIN_IDS["public"])}


def test_a_batch_is_answered_in_order(rpc: JsonRpc) -> None:
    batch = [request(method, id=number) for number, method in enumerate(["eth_chainId", "nope", "eth_accounts"])]
    first, second, third = rpc.answer(batch)
    assert (first["id"], first["result"]) == (0, hex(CHAIN_IDS["public"]))
    assert (second["id"], second["error"]["code"]) == (1, METHOD_NOT_FOUND)
    assert (third["id"], third["result"]) == (2, [])


@pytest.mark.parametrize(
    ("request_", "code", "fact"),
    [
        ("eth_chainId", INVALID_REQUEST, "str"),
        (request("eth_chainId", params={}), INVALID_PARAMS, "dict"),
        (request("eth_getBalance", "no address"), INVALID_PARAMS, "no address"),
        (request("eth_getBalance"), INVALID_PARAMS, "address"),
        (request("eth_getBalance", "0x" + "00" * 20, "0x99"), REFUSED, "0x99"),
        (request("eth_mine"), METHOD_NOT_FOUND, "eth_mine"),
        (request(None), METHOD_NOT_FOUND, "None"),
        (request(["eth_chainId"]), METHOD_NOT_FOUND, "eth_chainId"),
        (request("eth__header"), METHOD_NOT_FOUND, "eth__header"),
        (request("eth_sendRawTransaction", "0x03"), REFUSED, "blobs"),
    ],
)
def test_a_request_that_is_none_is_answered_with_its_fault(rpc: JsonRpc, request_: Any, code: int, fact: str) -> None:
    error = rpc.answer(request_)["error"]
    assert error["code"] == code
    assert fact in error["message"]


@pytest.mark.parametrize(
    ("error", "body"),
    [
        (RevertedError("execution reverted", b"\x12"), {"code": REVERTED, "data": "0x12"}),
        (InvalidTransactionError("no funds"), {"code": REFUSED, "message": "no funds"}),
    ],
)
def test_a_chain_s_refusal_is_an_error_object(
    rpc: JsonRpc, monkeypatch: pytest.MonkeyPatch, error: Exception, body: dict[str, Any]
) -> None:
    def refuse() -> None:
        raise error

    monkeypatch.setitem(rpc._methods, "eth_chainId", refuse)
    assert rpc.answer(request("eth_chainId"))["error"].items() >= body.items()


def test_our_own_fault_is_logged_and_answered(
    rpc: JsonRpc, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise RuntimeError("a bug")

    monkeypatch.setitem(rpc._methods, "eth_chainId", fail)
    assert rpc.answer(request("eth_chainId"))["error"]["code"] == INTERNAL_ERROR
    assert "a bug" in capsys.readouterr().err


def test_a_disk_that_refuses_is_not_answered(rpc: JsonRpc, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server ends on it: what is in memory is ahead of the disk."""

    def fail() -> None:
        raise OSError("no space left on device")

    monkeypatch.setitem(rpc._methods, "eth_chainId", fail)
    with pytest.raises(OSError, match="no space left"):
        rpc.answer(request("eth_chainId"))


def test_requests_are_handled_one_at_a_time(rpc: JsonRpc, monkeypatch: pytest.MonkeyPatch) -> None:
    inside: list[int] = []
    most: list[int] = []
    pause = threading.Event()

    def enter() -> None:
        inside.append(1)
        most.append(len(inside))
        pause.wait(0.02)
        inside.pop()

    monkeypatch.setitem(rpc._methods, "eth_chainId", enter)
    threads = [threading.Thread(target=rpc.answer, args=(request("eth_chainId"),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 4


def test_a_chain_is_closed_behind_the_request_in_progress_and_answers_no_later_one(tmp_path: Path) -> None:
    rpc = JsonRpc(EmbeddedChain(tmp_path / "chain.sqlite", CHAIN_IDS["public"], {}))
    asked, answered = threading.Event(), threading.Event()
    answers: list[Any] = []

    def slow() -> str:
        asked.set()
        assert answered.wait(10)
        return hex(rpc._chain.head.block_number)

    rpc._methods["eth_blockNumber"] = slow
    asking = threading.Thread(target=lambda: answers.append(rpc.answer(request("eth_blockNumber"))))
    asking.start()
    assert asked.wait(10)
    closing = threading.Thread(target=rpc.close)
    closing.start()
    answered.set()
    asking.join(10)
    closing.join(10)
    assert answers[0]["result"] == "0x0"
    later = threading.Thread(target=rpc.answer, args=(request("eth_chainId"),), daemon=True)
    later.start()
    later.join(0.1)
    assert later.is_alive()


def test_a_node_says_what_it_is(rpc: JsonRpc) -> None:
    assert rpc.answer(request("net_version"))["result"] == str(CHAIN_IDS["public"])
    assert rpc.answer(request("web3_clientVersion"))["result"] == "foedus/embedded"


def test_an_error_carries_data_only_where_there_is_some() -> None:
    assert failure(1, RpcError(3, "reverted", "0xab"))["error"] == {"code": 3, "message": "reverted", "data": "0xab"}
    assert failure(1, RpcError(-1, "no")) == {"jsonrpc": "2.0", "id": 1, "error": {"code": -1, "message": "no"}}
