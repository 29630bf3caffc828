"""HTTP in front of the chains: which chain a path is, what is refused, and when the server ends."""

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chain.devnet.accounts import CHAIN_IDS
from chain.devnet.evm import EmbeddedChain
from chain.devnet.rpc import INVALID_REQUEST, MAX_BATCH, PARSE_ERROR, JsonRpc
from chain.devnet.server import MAX_CONNECTIONS, MAX_REQUEST_BYTES, Server
from core.storage.lock import take


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    chains = {name: EmbeddedChain(folder / f"{name}.sqlite", CHAIN_IDS[name], {}) for name in CHAIN_IDS}
    server = Server(0, {name: JsonRpc(chain) for name, chain in chains.items()}, TOKEN)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


TOKEN = "token"  # noqa: S105 - of a server that holds nothing
PLAIN = {"Content-Type": "application/json"}


def post(server: Server, path: str, body: bytes, token: str = TOKEN, **headers: str) -> tuple[int, Any]:
    path, headers = f"/{token}{path}", PLAIN | headers
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    with contextlib.closing(connection):  # a server that is full refuses
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())


QUESTION = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []}).encode()


@pytest.mark.parametrize(
    ("path", "name"), [("/public", "public"), ("/private/", "private"), ("/", "public"), ("", "public")]
)
def test_a_path_leads_to_its_chain(server: Server, path: str, name: Any) -> None:
    status, answer = post(server, path, QUESTION)
    assert (status, answer["result"]) == (200, hex(CHAIN_IDS[name]))


def test_another_path_is_not_found(server: Server) -> None:
    assert post(server, "/nowhere", QUESTION)[0] == 404


@pytest.mark.parametrize("length", ["0", str(MAX_REQUEST_BYTES + 1), "-1", "1e9", "9" * 5000, "x"])
def test_a_body_that_is_empty_or_too_large_is_refused_unread(server: Server, length: str) -> None:
    assert post(server, "/public", b"", **{"Content-Length": length})[0] == 413


def test_a_body_that_is_no_json_is_a_parse_error(server: Server) -> None:
    status, answer = post(server, "/public", b"{")
    assert (status, answer["error"]["code"]) == (200, PARSE_ERROR)


@pytest.mark.parametrize("token", ["", "public", "tokem", "token2"])
def test_without_the_service_files_token_nothing_is_answered(server: Server, token: str) -> None:
    assert post(server, "/public", QUESTION, token)[0] == 404


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (421, {"Host": "rebind.attacker.example"}),
        (421, {"Host": "127.0.0.1"}),
        (403, {"Origin": "https://attacker.example"}),
        (403, {"Origin": "null"}),
        (415, {"Content-Type": "text/plain"}),
        (415, {"Content-Type": "application/x-www-form-urlencoded"}),
    ],
)
def test_a_web_page_cannot_use_the_chain(server: Server, status: int, headers: dict[str, str]) -> None:
    # What a browser sends for a page, even one that somehow knows the token.
    assert post(server, "/public", QUESTION, **headers)[0] == status


def test_deep_nesting_is_a_parse_error_and_the_server_lives(server: Server) -> None:
    for body in (b"[" * 200_000 + b"]" * 200_000, ('["\u2200",' + "[" * 10**5 + "]" * 10**5 + "]").encode("utf-16-le")):
        assert post(server, "/public", body)[1]["error"]["code"] == PARSE_ERROR
    assert post(server, "/public", QUESTION)[0] == 200


def test_a_batch_is_bounded(server: Server) -> None:
    one = json.loads(QUESTION)
    assert len(post(server, "/public", json.dumps([one] * MAX_BATCH).encode())[1]) == MAX_BATCH
    for count in (0, MAX_BATCH + 1):
        answer = post(server, "/public", json.dumps([one] * count).encode())[1]
        assert answer["error"]["code"] == INVALID_REQUEST


def test_connections_are_bounded_and_make_room_when_they_end(server: Server) -> None:
    address = ("127.0.0.1", server.server_address[1])
    held = [socket.create_connection(address) for _ in range(MAX_CONNECTIONS)]
    with pytest.raises((http.client.HTTPException, OSError)):
        post(server, "/public", QUESTION)
    for connection in held:
        connection.close()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(http.client.HTTPException, OSError):
            assert post(server, "/public", QUESTION)[0] == 200
            return
        time.sleep(0.05)
    pytest.fail("no room after the connections have ended")


def test_one_connection_asks_more_than_once(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    for _ in range(3):
        connection.request("POST", f"/{TOKEN}/public", QUESTION, PLAIN)
        assert json.loads(connection.getresponse().read())["result"] == hex(CHAIN_IDS["public"])
    connection.close()


def test_an_answer_does_not_wait_for_a_delayed_acknowledgement(server: Server) -> None:
    """With Nagle's algorithm on, each answer would take 40 ms and more."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    times = []
    for _ in range(15):
        started = time.perf_counter()
        connection.request("POST", f"/{TOKEN}/public", QUESTION, PLAIN)
        connection.getresponse().read()
        times.append(time.perf_counter() - started)
    connection.close()
    assert min(times) < 0.03


def test_the_server_answers_on_loopback_only(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert server.url == f"http://127.0.0.1:{server.server_address[1]}/{TOKEN}"


def ended(server: Server, thread: threading.Thread, seconds: float) -> bool:
    thread.join(seconds)
    server.server_close()
    return not thread.is_alive()


@pytest.mark.parametrize("end", ["idle", "removed", "replaced"])
def test_a_server_ends_when_it_is_idle_or_its_folder_is_gone(tmp_path: Path, end: str) -> None:
    server, lock = Server(0, {}, TOKEN), take(tmp_path / "lock")
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


def test_a_request_begins_the_idle_time_of_a_server_anew(server: Server) -> None:
    server.last_request -= 3600.0
    post(server, "/public", QUESTION)
    assert time.monotonic() - server.last_request < 3600.0


def test_a_daemon_that_cannot_write_ends(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class FullDisk:
        def answer(self, request: Any) -> Any:
            raise OSError("no space left on device")

    def leave(status: int) -> None:
        raise SystemExit(status)

    monkeypatch.setattr("chain.devnet.server.os._exit", leave)
    server = Server(0, {}, TOKEN)
    with pytest.raises(SystemExit, match="74"):
        server.answer(FullDisk(), {})  # type: ignore[arg-type]  # a stand-in
    server.server_close()
    assert "no space left on device" in capsys.readouterr().err
