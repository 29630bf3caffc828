"""HTTP in front of the embedded chains: http://127.0.0.1:PORT/TOKEN/public and /TOKEN/private.

The token is for those who can read the service's file, which is its owner: web pages and other users of the machine can
reach the port, and a browser sends what a page tells it to. So a request must also name this host, come from no page,
and say that it is JSON, which no page can without asking first. Requests, batches and connections are bounded.
"""

import contextlib
import json
import os
import secrets
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any, Final

from chain.devnet.accounts import CHAIN_IDS, FUNDS, administrator
from chain.devnet.evm import EmbeddedChain
from chain.devnet.rpc import PARSE_ERROR, JsonRpc, RpcError, failure
from chain.devnet.service import LOCK, Address, announce
from core.canonical import parse_json
from core.errors import FormatError

MAX_REQUEST_BYTES: Final = 16 * 2**20
MAX_CONNECTIONS: Final = 64
# Below the time that a client waits for a service: one that found no room gets it.
IDLE_CONNECTION_SECONDS: Final = 20.0


class Handler(BaseHTTPRequestHandler):
    """One HTTP connection."""

    server: "Server"
    protocol_version = "HTTP/1.1"
    # Without these two every answer waits 40 ms for the peer's delayed acknowledgement.
    disable_nagle_algorithm = True
    wbufsize = -1
    timeout = IDLE_CONNECTION_SECONDS

    def do_POST(self) -> None:
        """Answer JSON-RPC."""
        self.server.last_request = time.monotonic()
        chain = self.server.chain_at(self.path)
        length = self.headers.get("Content-Length") or "0"
        fits = length.isascii() and length.isdecimal() and 0 < int(length[:12]) <= MAX_REQUEST_BYTES
        status = self.refusal() or (404 if chain is None else 0) or (0 if fits else 413)
        if status or chain is None:
            # The body stays unread, so that no next request can be told from it.
            self.close_connection = True
            self._reply(status, {"error": "POST application/json to the URL of the service file, from no web page"})
            return
        try:
            request = parse_json(self.rfile.read(int(length)), MAX_REQUEST_BYTES)
        except FormatError as error:
            self._reply(200, failure(None, RpcError(PARSE_ERROR, str(error))))
            return
        self._reply(200, self.server.answer(chain, request))

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the log for what goes wrong."""

    def refusal(self) -> int:
        """The status that refuses a request whatever it asks; 0 for none."""
        port = self.server.server_address[1]
        # A page that has rebound its own name to this machine still sends that name.
        if self.headers.get("Host") not in (f"127.0.0.1:{port}", f"localhost:{port}"):
            return 421
        if "Origin" in self.headers:
            return 403
        return 0 if self.headers.get_content_type() == "application/json" else 415

    def _reply(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class Server(ThreadingHTTPServer):
    """The chains behind one port."""

    daemon_threads = True

    def __init__(self, port: int, chains: dict[str, JsonRpc], token: str) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.chains = chains
        self.token = token
        self._connections = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self.last_request = time.monotonic()

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.server_address[1]}/{self.token}"

    def chain_at(self, path: str) -> JsonRpc | None:
        """The chain of a request's path, the public one for the token alone; None for another token or chain."""
        token, _, name = path.strip("/").partition("/")
        known = secrets.compare_digest(token.encode(), self.token.encode())
        return self.chains.get(name or "public") if known else None

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a connection in a thread of its own; one above the bound is closed."""
        if self._connections.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """A connection's thread, which makes room for another when it ends."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

    def answer(self, chain: JsonRpc, request: Any) -> Any:
        """Answer; when the disk refuses a block, memory is ahead of it and the process must end."""
        try:
            return chain.answer(request)
        except OSError as error:
            sys.stderr.write(f"cannot write the chain: {error}\n")  # the log, whose last line others show
            sys.stderr.flush()
            os._exit(os.EX_IOERR)

    def watch(self, lock: IO[bytes], path: Path, idle: float) -> None:
        """End the server when it is idle or its folder, with the lock at `path`, has gone or is another."""
        held = os.fstat(lock.fileno())
        with contextlib.suppress(FileNotFoundError):
            while os.path.samestat(held, path.stat()) and time.monotonic() - self.last_request < idle:
                time.sleep(min(1.0, idle / 4))
        self.shutdown()


def serve(folder: Path, lock: IO[bytes], address: Address, idle: float, *, fixed_port: bool) -> None:
    """Serve the folder's chains until idle or SIGTERM.

    `lock` is the service's; the port of `address` is only preferred, and another one chosen when it is in use, unless
    `fixed_port`.
    """
    port, token = address
    alloc = {bytes.fromhex(administrator().address[2:]): FUNDS}
    methods: dict[str, JsonRpc] = {
        name: JsonRpc(EmbeddedChain(folder / f"{name}.sqlite", CHAIN_IDS[name], alloc)) for name in CHAIN_IDS
    }
    try:
        server = Server(port, methods, token)
    except OSError:
        if fixed_port:
            raise
        server = Server(0, methods, token)
    # A handler runs in the main thread, which serves: shutting down there would wait for itself.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    threading.Thread(target=server.watch, args=(lock, folder / LOCK, idle), daemon=True).start()
    announce(folder, server.url)
    server.serve_forever(poll_interval=0.1)
    server.server_close()
    for rpc in methods.values():
        rpc.close()
