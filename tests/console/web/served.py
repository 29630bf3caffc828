"""A server in this process, on a real socket of the loopback."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import uvicorn
from openai import OpenAI

from console.serve import listening_on
from console.web.app import Site, application
from console.web.engine import Engine
from console.web.proxy import Proxy
from console.web.security import Token
from core import keys
from core.storage.state_folder import State
from tests.commands import PATIENCE_SECONDS

SIGNER = keys.derive(5, "server")
SECONDS = PATIENCE_SECONDS


@dataclass(frozen=True)
class Answered:
    """What a server answered."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


@dataclass(frozen=True)
class Served:
    """A server, and the file of its token."""

    port: int
    site: Site
    token_file: Path | None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def run(self) -> str:
        """The newest run."""
        return [*self.site.runs()][-1]

    @property
    def token(self) -> str:
        assert self.token_file
        return self.token_file.read_text(encoding="utf-8").strip()

    def client(self) -> OpenAI:
        """The official client."""
        return OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=SECONDS)

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answered:
        """One request, whose headers are given with underscores."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, named)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answered(response.status, found, response.read().decode())
        finally:
            connection.close()

    def get(self, path: str) -> str:
        """A page that is there."""
        found = self.ask("GET", path)
        assert found.status == 200, found.text
        return found.text

    def post(self, path: str, **fields: str) -> Answered:
        """A form of the console's own."""
        kind = {"content_type": "application/x-www-form-urlencoded", "origin": self.url}
        return self.ask("POST", path, urlencode(fields).encode(), **kind)

    def complete(self, **fields: Any) -> Answered:
        """A completion, by hand."""
        asked = {
            "model": fields.get("model") or self.run,
            "messages": [{"role": "user", "content": "coding 3?"}],
            "max_tokens": 6,
        }
        body = json.dumps(asked | {"temperature": 0} | fields).encode()
        return self.ask("POST", "/v1/chat/completions", body, content_type="application/json")


@contextmanager
def serving(
    state: Path, token_file: Path | None = None, names: tuple[str, ...] = (), proxy: Proxy | None = None
) -> Iterator[Served]:
    """A server of a state folder's runs."""
    folder = State.at(state)
    engine = Engine(folder)
    site = Site(folder, engine, SIGNER, Token(token_file), names, proxy)
    with listening_on(0) as listening:
        port = listening.getsockname()[1]
        # Small: a client that reads nothing is noticed before it was sent megabytes.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**14)
        app = application(site, port)
        config = uvicorn.Config(
            app, loop="asyncio", http="h11", ws="none", lifespan="off", log_level="error", timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        engine.start()
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            end = time.monotonic() + SECONDS
            while not server.started:
                assert time.monotonic() < end, "the server did not start"
                time.sleep(0.01)
            yield Served(port, site, token_file)
        finally:
            server.should_exit = True
            thread.join(SECONDS)
            engine.close()
