"""HTTP in front of the chains: paths, limits, and when a server ends."""

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chain.devnet.server import MAX_REQUEST_BYTES, Server

Call = Callable[..., tuple[int, Any]]


class Echo:
    """A chain that answers with its own name and what it was asked."""

    def __init__(self, name: str) -> None:
        self.name = name

    def answer(self, request: Any) -> Any:
        return [self.name, request]


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(0, {name: Echo(name) for name in ("public", "private")})  # type: ignore[misc]  # stand-ins
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def call(server: Server) -> Iterator[Call]:
    """POST to a path over one connection."""
    connection = http.client.HTTPConnection(*server.server_address, timeout=10)  # type: ignore[arg-type]  # host, port

    def post(path: str, body: bytes, **headers: str) -> tuple[int, Any]:
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())

    yield post
    connection.close()


@pytest.mark.parametrize(
    ("path", "chain"), [("/", "public"), ("", "public"), ("/public", "public"), ("/private/", "private")]
)
def test_a_chain_is_chosen_by_the_path(call: Call, path: str, chain: str) -> None:
    assert call(path, b'{"id": 1}') == (200, [chain, {"id": 1}])


def test_one_connection_carries_many_requests(call: Call) -> None:
    assert [call("/public", str(number).encode())[1] for number in range(3)] == [["public", n] for n in range(3)]


def test_an_unknown_path_is_not_found(call: Call) -> None:
    assert call("/elsewhere", b"{}")[0] == 404


def test_what_is_no_json_is_answered_as_a_parse_error(call: Call) -> None:
    status, answer = call("/public", b"{")
    assert (status, answer["id"], answer["error"]["code"]) == (200, None, -32700)


@pytest.mark.parametrize("length", ["0", "-1", str(MAX_REQUEST_BYTES + 1)])
def test_a_request_of_no_or_too_many_bytes_is_not_read(call: Call, length: str) -> None:
    assert call("/public", b"", **{"Content-Length": length})[0] == 413


def test_the_server_answers_on_loopback_only(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert server.url == f"http://127.0.0.1:{server.server_address[1]}"


@pytest.mark.parametrize("reason", ["idle", "gone", "another"])
def test_a_server_ends_when_it_is_idle_or_its_folder_is_no_longer_its_own(tmp_path: Path, reason: str) -> None:
    server = Server(0, {})
    path = tmp_path / "lock"
    with path.open("w") as lock:
        threading.Thread(target=server.watch, args=(lock, path, 0.2 if reason == "idle" else 60.0), daemon=True).start()
        if reason != "idle":
            path.unlink()
        if reason == "another":
            path.touch()
        started = time.monotonic()
        server.serve_forever(poll_interval=0.01)
    server.server_close()
    assert time.monotonic() - started < 30


def test_a_request_keeps_a_server_from_being_idle(server: Server, call: Call) -> None:
    before = server.last_request
    call("/public", b"{}")
    assert server.last_request > before
