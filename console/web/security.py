"""Who may ask, and how much: Host and Origin, the token, bounds of size and time, and the headers of every answer.

A page of another site can make a browser ask this server, and a name can be rebound to 127.0.0.1: both show in Host or
Origin. There is no cookie, so nothing is done on anybody's behalf: what changes something brings the token itself.
"""

import asyncio
import hmac
import secrets
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.canonical import parse_json, to_json
from core.errors import FormatError, UsageError
from core.keys import read_passphrase

T = TypeVar("T")

LARGEST_BODY = 2**20
SLOWEST_SECONDS = 30.0
"""For a whole request to arrive, and for a client to take each part of an answer."""
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    # Not no-referrer: with that, browsers send the forms of this very server with Origin null.
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
}
_LEAST_TOKEN = 16
_LOOK_SECONDS = 0.5
"""Between two looks at whether a client still waits."""


class TooLargeError(UsageError):
    """A body that is larger, or comes more slowly, than is read."""


Headers = Iterable[tuple[bytes, bytes]]


class _NotReadingError(Exception):
    """A client does not read its answer; no OSError, for which the application would begin another."""


class Guard:
    """Refuses another Host or Origin, sets the headers of every answer, and gives up on clients that do not read."""

    def __init__(self, app: ASGIApp, origins: Iterable[str], user: Callable[[Headers], str] | None = None) -> None:
        """`origins` are those by which this server is reached, http://HOST:PORT.

        Behind a proxy, `user` tells from a request's headers whom it names, or "" for who comes past it.
        """
        self.app, self.origins, self.user = app, frozenset(origins), user
        self.hosts = frozenset(urlsplit(origin).netloc for origin in self.origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def headed(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *own]}
            # Who does not read his answer would otherwise hold it, and its place, for ever.
            try:
                await asyncio.wait_for(send(message), SLOWEST_SECONDS)
            except TimeoutError as error:
                raise _NotReadingError from error

        if refusal := self._refusal(scope):
            await PlainTextResponse(f"{refusal}\n", 403)(scope, receive, headed)
            return
        if self.user:
            scope.setdefault("state", {})["user"] = self.user(scope["headers"])
        with suppress(_NotReadingError):
            await self.app(scope, receive, headed)

    def _refusal(self, scope: Scope) -> str:
        """Why a request is refused; "" when it is not."""
        given = {name: [v.decode("latin-1") for n, v in scope["headers"] if n == name] for name in (b"host", b"origin")}
        if len(given[b"host"]) != 1 or given[b"host"][0].lower() not in self.hosts:
            return f"Host: expected {', '.join(sorted(self.hosts))}, got {', '.join(given[b'host'])[:80] or 'none'}"
        if strange := [origin for origin in given[b"origin"] if origin.lower() not in self.origins]:
            return f"Origin: expected this server's own, got {strange[0][:80]}"
        if self.user and not self.user(scope["headers"]):
            return "expected a request of the proxy that names who asks, got another"
        return ""


class Token:
    """What whoever changes something must bring; without a file nothing can be changed."""

    def __init__(self, file: Path | None) -> None:
        """Read the token of a file, which is made with a new one where there is none.

        Raises UsageError for a file that others can read, or a token of under 16 characters.
        """
        self.file, self._token = file, ""
        if file is None:
            return
        if not file.exists():
            try:
                file.touch(mode=0o600, exist_ok=False)
                file.write_text(secrets.token_urlsafe(24) + "\n", encoding="utf-8")
            except OSError as error:
                raise UsageError(
                    f"token file {file}: expected a folder to write it in, got {error.strerror}"
                ) from error
        self._token = read_passphrase(file)
        if len(self._token) < _LEAST_TOKEN:
            raise UsageError(f"token file {file}: expected at least {_LEAST_TOKEN} characters, got {len(self._token)}")

    @property
    def known(self) -> bool:
        """Whether anything can be changed."""
        return bool(self._token)

    def allows(self, given: object) -> bool:
        """Whether this is the token; takes the same time whatever is given."""
        text = given if isinstance(given, str) else ""
        return hmac.compare_digest(text.strip().encode(), self._token.encode()) and self.known


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """What some work comes to; it is ended, and TooLargeError raised, once nobody waits for it any more."""
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=_LOOK_SECONDS)
            if not task.done() and await request.is_disconnected():
                raise TooLargeError("expected a client that waits for its answer, got one that has gone")
        return task.result()
    finally:
        task.cancel()
        await asyncio.wait({task})  # what it holds, as a generator that answers, is in use until it has ended


async def read_json(request: Request) -> Any:
    """The JSON of a request's body; raises UsageError for another type, and for what is none."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        # A form of another site can send text/plain without asking, and nothing else that is read here.
        raise UsageError(f"content-type: expected application/json, got {request.headers.get('content-type')!r:.80}")
    body = await _body(request)
    try:
        found = parse_json(body, LARGEST_BODY)
        # Python's parser takes NaN, and half a character: neither could be said again, in an answer or a receipt.
        to_json(found)
    except FormatError as error:
        raise UsageError(f"body: {error}") from error
    return found


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form, each once; raises UsageError."""
    body = await _body(request)
    try:
        return dict(
            parse_qsl(body.decode("ascii"), keep_blank_values=True, strict_parsing=bool(body), max_num_fields=32)
        )
    except ValueError as error:
        raise UsageError(f"body: expected the fields of a form, got {error}") from error


async def _body(request: Request) -> bytes:
    data = bytearray()
    try:
        async with asyncio.timeout(SLOWEST_SECONDS):
            async for part in request.stream():
                data += part
                if len(data) > LARGEST_BODY:
                    raise TooLargeError(f"body: expected at most {LARGEST_BODY} bytes, got more")
    except TimeoutError as error:
        raise TooLargeError(f"body: expected all of it within {SLOWEST_SECONDS:g} s, got {len(data)} bytes") from error
    except ClientDisconnect as error:
        raise TooLargeError("body: expected all of it, got a connection that was closed") from error
    return bytes(data)
