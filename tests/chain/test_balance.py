"""What a chain behind a URL answers to whoever only watches: a number, or nothing."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from chain.balance import asked, balance
from console.backends.children import free_port
from tests import federation as f


@contextmanager
def chain(result: object) -> Iterator[str]:
    """A chain's endpoint that answers every question alike; its URL."""

    class _Node(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), _Node) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/secret"
        server.shutdown()


def test_a_balance_is_in_ether() -> None:
    with chain(hex(3 * 10**18)) as url:
        assert asked(url, "eth_chainId") == hex(3 * 10**18)
        assert balance(url, f.COORDINATOR.address) == 3.0


@pytest.mark.parametrize("result", [None, ["odd"], "0xzz", 5, "0x" + "f" * 65])
def test_what_is_no_number_is_no_balance(result: object) -> None:
    with chain(result) as url:
        assert balance(url, f.COORDINATOR.address) is None


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}", "http://[::", "http://127.0.0.1:99999"])
def test_a_chain_that_does_not_answer_has_no_balance(url: str) -> None:
    assert balance(url.format(port=free_port()), f.COORDINATOR.address) is None
