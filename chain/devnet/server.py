"""HTTP in front of the embedded chains: http://127.0.0.1:PORT/public and /private; without a path, the public one."""

import contextlib
import json
import os
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
from chain.devnet.service import LOCK, announce
from core.canonical import parse_json
from core.errors import FormatError

MAX_REQUEST_BYTES: Final = 16 * 2**20


class Handler(BaseHTTPRequestHandler):
    """One HTTP connection."""

    server: "Server"
    protocol_version = "HTTP/1.1"
    # Without these two every answer waits 40 ms for the peer's delayed acknowledgement.
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_POST(self) -> None:
        """Answer JSON-RPC."""
        self.server.last_request = time.monotonic()
        chain = self.server.chains.get(self.path.strip("/") or "public")
        length = int(self.headers.get("Content-Length") or 0)
        if chain is None or not 0 < length <= MAX_REQUEST_BYTES:
            # The body stays unread, so that no next request can be told from it.
            self.close_connection = True
            self._reply(404 if chain is None else 413, {"error": "POST JSON-RPC to /public or /private"})
            return
        try:
            request = parse_json(self.rfile.read(length), MAX_REQUEST_BYTES)
        except FormatError as error:
            self._reply(200, failure(None, RpcError(PARSE_ERROR, str(error))))
            return
        self._reply(200, self.server.answer(chain, request))

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the log for what goes wrong."""

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

    def __init__(self, port: int, chains: dict[str, JsonRpc]) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.chains = chains
        self.last_request = time.monotonic()

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.server_address[1]}"

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


def serve(folder: Path, lock: IO[bytes], port: int, idle: float, *, fixed_port: bool) -> None:
    """Serve the folder's chains until idle or SIGTERM.

    `lock` is the service's; `port` is only preferred, and another one chosen when it is in use, unless `fixed_port`.
    """
    alloc = {bytes.fromhex(administrator().address[2:]): FUNDS}
    methods: dict[str, JsonRpc] = {
        name: JsonRpc(EmbeddedChain(folder / f"{name}.sqlite", CHAIN_IDS[name], alloc)) for name in CHAIN_IDS
    }
    try:
        server = Server(port, methods)
    except OSError:
        if fixed_port:
            raise
        server = Server(0, methods)
    # A handler runs in the main thread, which serves: shutting down there would wait for itself.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    threading.Thread(target=server.watch, args=(lock, folder / LOCK, idle), daemon=True).start()
    announce(folder, server.url)
    server.serve_forever(poll_interval=0.1)
    server.server_close()
    for rpc in methods.values():
        rpc.close()
