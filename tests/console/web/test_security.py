"""Host, Origin, token, sizes and time: who is let in, and how much is read."""

import asyncio
import socket
import threading
from collections.abc import AsyncGenerator, Awaitable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Message

from console.web import security
from console.web.security import LARGEST_BODY, Token
from core.errors import UsageError
from tests.console.web.served import Served
from tests.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.chain

JSON = b'{"model": "x", "messages": [{"role": "user", "content": "y"}]}'


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost", "[::1]:80", "", "127.0.0.1.nip.io"]
)
def test_another_host_is_refused_wherever_it_is_rebound_to(served: Served, host: str) -> None:
    for method, path in (("GET", "/"), ("GET", "/v1/models"), ("POST", "/v1/chat/completions"), ("GET", "/script.js")):
        found = served.ask(method, path, JSON if method == "POST" else None, host=host)
        assert found.status == 403
        assert "Host: expected" in found.text


def test_two_hosts_or_none_are_refused(served: Served) -> None:
    own = f"Host: 127.0.0.1:{served.port}\r\n"
    for heads in (own + own, own + "Host: evil.example\r\n", ""):
        with socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection:
            connection.sendall(f"GET /v1/models HTTP/1.1\r\n{heads}Connection: close\r\n\r\n".encode())
            status = connection.recv(4096).split(b"\r\n")[0]
        assert status.split()[1] in (b"400", b"403"), status


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://127.0.0.1:{port}", "http://127.0.0.1", "file://"]
)
def test_another_origin_is_refused(served: Served, origin: str) -> None:
    origin = origin.format(port=served.port)
    for path in ("/v1/chat/completions", f"/runs/{served.run}/erase", f"/runs/{served.run}/trust"):
        found = served.ask("POST", path, JSON, origin=origin, content_type="application/json")
        assert found.status == 403
        assert "Origin: expected" in found.text


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST"])
def test_its_own_names_are_let_in(served: Served, host: str) -> None:
    name = f"{host}:{served.port}"
    assert served.ask("GET", "/v1/models", host=name, origin=f"http://{name}").status == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "text/plain;application/json"])
def test_a_body_that_is_not_said_to_be_json_is_refused(served: Served, kind: str) -> None:
    found = served.ask("POST", "/v1/chat/completions", JSON, content_type=kind)
    assert found.status == 400
    assert "content-type: expected application/json" in found.text


def test_a_body_is_read_up_to_a_bound(served: Served) -> None:
    for path in ("/v1/chat/completions", f"/runs/{served.run}/trust"):
        found = served.ask("POST", path, b" " * (LARGEST_BODY + 1), content_type="application/json")
        assert found.status in (404, 413)
        assert f"expected at most {LARGEST_BODY} bytes" in found.text


def test_a_body_that_comes_too_slowly_is_given_up_and_holds_nobody(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(security, "SLOWEST_SECONDS", 0.5)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection:
        connection.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        assert served.ask("GET", "/v1/models").status == 200
        assert b"413" in connection.recv(4096)


def test_a_client_that_reads_nothing_is_given_up(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    given_up, page = threading.Event(), f"/runs/{served.run}"
    more = 2**20 // len(served.ask("GET", page).text)  # than what the kernel takes for somebody who does not read

    async def noted(work: Awaitable[None], seconds: float) -> None:
        try:
            await asyncio.wait_for(work, seconds)
        except TimeoutError:
            given_up.set()
            raise

    monkeypatch.setattr(security, "SLOWEST_SECONDS", 0.5)
    monkeypatch.setattr(security, "asyncio", SimpleNamespace(**vars(asyncio) | {"wait_for": noted}))
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        connection.sendall(f"GET {page} HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n\r\n".encode() * more)
        assert given_up.wait(PATIENCE_SECONDS)
        assert served.ask("GET", "/v1/models").status == 200


def test_who_reads_nothing_is_given_up_without_a_word_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    async def told(_request: Request, error: Exception) -> Response:
        return PlainTextResponse(str(error), 503)

    async def hang(_message: Message) -> None:
        await asyncio.sleep(PATIENCE_SECONDS)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    routes = [Route("/", lambda _request: PlainTextResponse("long"))]
    guard = security.Guard(Starlette(routes=routes, exception_handlers={OSError: told}), ["http://127.0.0.1:1"])
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"127.0.0.1:1")], "query_string": b""}
    monkeypatch.setattr(security, "SLOWEST_SECONDS", 0.01)
    asyncio.run(guard(scope, receive, hang))  # a server logs what comes out of it


def test_every_answer_has_the_policy(served: Served) -> None:
    for path in ("/", "/v1/models", "/style.css", "/nowhere", f"/runs/{served.run}"):
        headers = served.ask("GET", path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in headers
        assert "set-cookie" not in headers
        assert "server" not in headers or "uvicorn" in headers["server"]


@pytest.mark.parametrize(
    "path", ["/../../etc/passwd", "/runs/..%2f..", "/runs/%00", "/evidence/../x", "/style.css/..", "//evil"]
)
def test_paths_lead_nowhere_else(served: Served, path: str) -> None:
    found = served.ask("GET", path)
    assert found.status in (400, 404)
    assert "root:" not in found.text


# --- the token -----------------------------------------------------------------------------------------------------


def test_a_token_is_made_where_there_is_none_and_read_again(tmp_path: Path) -> None:
    file = tmp_path / "token"
    made, again = Token(file), Token(file)
    text = file.read_text(encoding="utf-8").strip()
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(text) >= 32
    assert made.known
    assert made.allows(text)
    assert again.allows(f" {text}\n")


@pytest.mark.parametrize("given", ["", "x", None, 3, [], "é" * 40])
def test_nothing_else_is_the_token(tmp_path: Path, given: Any) -> None:
    assert not Token(tmp_path / "token").allows(given)
    assert not Token(None).allows(given)
    assert not Token(None).known


def test_a_token_that_others_can_read_or_guess_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("short\n", encoding="utf-8")
    file.chmod(0o600)
    with pytest.raises(UsageError, match="at least 16 characters"):
        Token(file)
    file.write_text("a" * 40, encoding="utf-8")
    file.chmod(0o644)
    with pytest.raises(UsageError, match="mode 0600"):
        Token(file)
    with pytest.raises(UsageError, match="folder"):
        Token(tmp_path / "nowhere" / "token")


def test_work_that_nobody_waits_for_has_ended_when_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever closes a generator that still runs gets an error of the event loop's, and no answer of ours."""
    monkeypatch.setattr(security, "_LOOK_SECONDS", 0.01)

    async def answer() -> AsyncGenerator[int, None]:
        await asyncio.sleep(PATIENCE_SECONDS)
        yield 1

    async def ask() -> None:
        gone, events = SimpleNamespace(is_disconnected=partial(asyncio.sleep, 0, True)), answer()
        with pytest.raises(security.TooLargeError, match="got one that has gone"):
            await security.while_connected(cast(Request, gone), anext(events))
        await events.aclose()

    asyncio.run(ask())
