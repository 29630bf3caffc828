"""JSON-RPC 2.0 as its specification has it: requests, batches, and the code of every error."""

from pathlib import Path
from typing import Any

import pytest

from chain.devnet.accounts import CHAIN_IDS
from chain.devnet.evm import EmbeddedChain, InvalidTransactionError, RevertedError
from chain.devnet.rpc import JsonRpc, RpcError, failure

CHAIN_ID = CHAIN_IDS["public"]


@pytest.fixture(scope="module")
def rpc(tmp_path_factory: pytest.TempPathFactory) -> JsonRpc:
    return JsonRpc(EmbeddedChain(tmp_path_factory.mktemp("rpc") / "chain", CHAIN_ID, {}))


def test_an_answer_carries_the_request_s_id(rpc: JsonRpc) -> None:
    for identity in (7, "seven", None):
        answer = rpc.answer({"jsonrpc": "2.0", "id": identity, "method": "net_version"})
        assert answer == {"jsonrpc": "2.0", "id": identity, "result": str(CHAIN_ID)}


def test_a_batch_is_answered_one_by_one_in_its_order(rpc: JsonRpc) -> None:
    batch = [{"id": 1, "method": "eth_chainId"}, "eth_chainId", {"id": 3, "method": "eth_blockNumber", "params": []}]
    first, second, third = rpc.answer(batch)
    assert (first["id"], first["result"]) == (1, hex(CHAIN_ID))
    assert (second["id"], second["error"]["code"]) == (None, -32600)
    assert (third["id"], third["result"]) == (3, "0x0")
    assert rpc.answer([]) == []


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ("eth_chainId", -32600),
        ({"id": 1}, -32601),
        ({"id": 1, "method": ["eth_chainId"]}, -32601),
        ({"id": 1, "method": "eth_mine"}, -32601),
        ({"id": 1, "method": "eth_chainId", "params": {}}, -32602),
        ({"id": 1, "method": "eth_chainId", "params": [1]}, -32602),
        ({"id": 1, "method": "eth_getBalance", "params": []}, -32602),
    ],
)
def test_a_request_that_is_none_is_answered_with_its_fault(rpc: JsonRpc, request_: Any, code: int) -> None:
    answer = rpc.answer(request_)
    assert answer.keys() == {"jsonrpc", "id", "error"}
    assert answer["error"]["code"] == code


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (RpcError(-1, "no", "0xab"), {"code": -1, "message": "no", "data": "0xab"}),
        (RevertedError("execution reverted", b"\xab"), {"code": 3, "message": "execution reverted", "data": "0xab"}),
        (InvalidTransactionError("nonce too low"), {"code": -32000, "message": "nonce too low"}),
        (ValueError("not hex"), {"code": -32602, "message": "eth_chainId: not hex"}),
    ],
)
def test_what_a_method_raises_has_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: Exception, error: dict[str, Any]
) -> None:
    def fail(*_: object) -> None:
        raise raised

    monkeypatch.setattr("chain.devnet.eth.EthMethods.chain_id", fail)
    answer = JsonRpc(EmbeddedChain(tmp_path / "chain", CHAIN_ID, {})).answer({"id": 7, "method": "eth_chainId"})
    assert answer == {"jsonrpc": "2.0", "id": 7, "error": error}


def test_our_own_fault_is_logged_and_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("chain.devnet.eth.EthMethods.chain_id", fail)
    error = JsonRpc(EmbeddedChain(tmp_path / "chain", CHAIN_ID, {})).answer({"id": 7, "method": "eth_chainId"})["error"]
    assert error["code"] == -32603
    assert "a bug" not in error["message"]
    assert "a bug" in capsys.readouterr().err


def test_a_disk_that_refuses_a_block_is_not_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("chain.devnet.eth.EthMethods.chain_id", fail)
    with pytest.raises(OSError, match="no space"):
        JsonRpc(EmbeddedChain(tmp_path / "chain", CHAIN_ID, {})).answer({"id": 7, "method": "eth_chainId"})


def test_an_error_carries_data_only_where_there_is_some() -> None:
    assert failure(1, RpcError(3, "reverted", "0xab"))["error"] == {"code": 3, "message": "reverted", "data": "0xab"}
    assert failure(1, RpcError(-1, "no")) == {"jsonrpc": "2.0", "id": 1, "error": {"code": -1, "message": "no"}}
