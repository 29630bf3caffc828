"""A Hub on the loopback: each folder in its root is a model, and what is sent is noted."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote

COMMIT = "a" * 40


class _Hub(ThreadingHTTPServer):
    """The server, with the folder of its models and the files that it has sent."""

    root: Path
    sent: list[str]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = unquote(self.path.partition("?")[0]).strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self.answer(json.dumps(self.listing(*parts[2:])).encode(), {"Content-Type": "application/json"})
            return
        path = self.server.root.joinpath(parts[1], *parts[4:])
        if not path.is_file():
            self.answer(b"", {"X-Error-Code": "EntryNotFound"}, 404)
            return
        body = path.read_bytes()
        if self.command == "GET":
            self.server.sent.append("/".join(parts[4:]))
        self.answer(body, {"ETag": f'"{hashlib.sha256(body).hexdigest()}"'})

    def listing(self, owner: str, name: str, *asked: str) -> Any:
        """What the Hub says of a model, or of the tree of its files."""
        folder = self.server.root / name
        files = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}
        if "tree" in asked:
            return [{"type": "file", "path": f, "size": p.stat().st_size, "oid": "0" * 40} for f, p in files.items()]
        return {"id": f"{owner}/{name}", "sha": COMMIT, "siblings": [{"rfilename": f} for f in files]}

    def answer(self, body: bytes, headers: dict[str, str], code: int = 200) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), "X-Repo-Commit": COMMIT, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def hub(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve the folders of `root` as OWNER/FOLDER; the URL, and the files that were sent."""
    server = _Hub(("127.0.0.1", 0), _Handler)
    server.root, server.sent = root, []
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server.sent
    finally:
        server.shutdown()
        server.server_close()
