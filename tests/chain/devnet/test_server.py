"""HTTP in front of the chains: which chain a path is, what is refused, and when the server ends."""

import http.client
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chain.devnet.accounts import CHAIN_IDS
from chain.devnet.evm import EmbeddedChain
from chain.devnet.rpc import PARSE_ERROR, JsonRpc
from chain.devnet.server import MAX_REQUEST_BYTES, Server
from core.storage.lock import take


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    chains = {name: EmbeddedChain(folder / f"{name}.sqlite", CHAIN_IDS[name], {}) for name in CHAIN_IDS}
    server = Server(0, {name: JsonRpc(chain) for name, chain in chains.items()})
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def post(server: Server, path: str, body: bytes, **headers: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    connection.request("POST", path, body, headers)
    response = connection.getresponse()
    answer = response.status, json.loads(response.read())
    connection.close()
    return answer


QUESTION = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []}).encode()


@pytest.mark.parametrize(
    ("path", "name"), [("/public", "public"), ("/private/", "private"), ("/", "public"), ("", "public")]
)
def test_a_path_leads_to_its_chain(server: Server, path: str, name: Any) -> None:
    status, answer = post(server, path, QUESTION)
    assert (status, answer["result"]) == (200, hex(CHAIN_IDS[name]))


def test_another_path_is_not_found(server: Server) -> None:
    assert post(server, "/nowhere", QUESTION)[0] == 404


@pytest.mark.parametrize("length", ["0", str(MAX_REQUEST_BYTES + 1), "-1"])
def test_a_body_that_is_empty_or_too_large_is_refused_unread(server: Server, length: str) -> None:
    assert post(server, "/public", b"", **{"Content-Length": length})[0] == 413


def test_a_body_that_is_no_json_is_a_parse_error(server: Server) -> None:
    status, answer = post(server, "/public", b"{")
    assert (status, answer["error"]["code"]) == (200, PARSE_ERROR)


def test_one_connection_asks_more_than_once(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    for _ in range(3):
        connection.request("POST", "/public", QUESTION)
        assert json.loads(connection.getresponse().read())["result"] == hex(CHAIN_IDS["public"])
    connection.close()


def test_an_answer_does_not_wait_for_a_delayed_acknowledgement(server: Server) -> None:
    """With Nagle's algorithm on, each answer would take 40 ms and more."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    times = []
    for _ in range(15):
        started = time.perf_counter()
        connection.request("POST", "/public", QUESTION)
        connection.getresponse().read()
        times.append(time.perf_counter() - started)
    connection.close()
    assert min(times) < 0.03


def test_the_server_answers_on_loopback_only(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert server.url == f"http://127.0.0.1:{server.server_address[1]}"


def ended(server: Server, thread: threading.Thread, seconds: float) -> bool:
    thread.join(seconds)
    server.server_close()
    return not thread.is_alive()


@pytest.mark.parametrize("end", ["idle", "removed", "replaced"])
def test_a_server_ends_when_it_is_idle_or_its_folder_is_gone(tmp_path: Path, end: str) -> None:
    server, lock = Server(0, {}), take(tmp_path / "lock")
    idle = 0.1 if end == "idle" else 3600.0
    if end != "idle":
        (tmp_path / "lock").unlink()
    if end == "replaced":
        (tmp_path / "lock").touch()
    serving = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    serving.start()
    threading.Thread(target=server.watch, args=(lock, tmp_path / "lock", idle), daemon=True).start()
    assert ended(server, serving, 10)
    lock.close()


def test_a_server_that_is_asked_goes_on(tmp_path: Path) -> None:
    server, lock = Server(0, {}), take(tmp_path / "lock")
    serving = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    serving.start()
    threading.Thread(target=server.watch, args=(lock, tmp_path / "lock", 0.5), daemon=True).start()
    for _ in range(10):
        time.sleep(0.1)
        post(server, "/public", QUESTION)
        assert serving.is_alive()
    assert ended(server, serving, 10)
    lock.close()


def test_a_daemon_that_cannot_write_ends(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class FullDisk:
        def answer(self, request: Any) -> Any:
            raise OSError("no space left on device")

    def leave(status: int) -> None:
        raise SystemExit(status)

    monkeypatch.setattr("chain.devnet.server.os._exit", leave)
    server = Server(0, {})
    with pytest.raises(SystemExit, match="74"):
        server.answer(FullDisk(), {})  # type: ignore[arg-type]  # a stand-in
    server.server_close()
    assert "no space left on device" in capsys.readouterr().err
