"""A Hub on the loopback: each folder in its root is a model, and what is sent is noted.

It takes uploads as the Hub does: large files by Git LFS's basic transfer, small ones in the commit.
"""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote

import pytest

COMMIT = "a" * 40


class _Hub(ThreadingHTTPServer):
    """The server, with the folder of its models and the files that it has sent."""

    root: Path
    sent: list[str]
    token: str
    """The one that may write, or "" for none."""
    private: dict[str, bool]
    """The repositories that were made, and whether they are private."""
    objects: dict[str, bytes]
    """What was uploaded by Git LFS, by SHA-256."""


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

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        parts = unquote(self.path.partition("?")[0]).strip("/").split("/")
        if not self.server.token or self.headers.get("Authorization") != f"Bearer {self.server.token}":
            self.answer(b'{"error": "Invalid credentials"}', {}, 401)
        elif parts == ["api", "repos", "create"]:
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.server.private[name] = asked["visibility"] == "private"
            self.told({"url": f"http://{self.headers['Host']}/{name}", "name": name})
        elif parts == ["api", "validate-yaml"]:  # of a model card
            self.told({"errors": [], "warnings": []})
        elif "preupload" in parts:
            modes = {file["path"]: "lfs" if file["size"] > 4096 else "regular" for file in json.loads(body)["files"]}
            self.told({"files": [{"path": p, "uploadMode": m, "shouldIgnore": False} for p, m in modes.items()]})
        elif parts[-1] == "batch":
            self.told({"transfer": "basic", "objects": [self.upload(one) for one in json.loads(body)["objects"]]})
        else:
            self.commit(parts[3], [json.loads(line) for line in body.splitlines()])
            url = f"http://{self.headers['Host']}/{parts[2]}/{parts[3]}/commit/{COMMIT}"
            self.told({"success": True, "commitOid": COMMIT, "commitUrl": url})

    def do_PUT(self) -> None:
        self.server.objects[self.path.rpartition("/")[2]] = b"".join(self.chunks())
        self.answer(b"", {})

    def chunks(self) -> Iterator[bytes]:
        """A body, of a length that was said or in chunks that each say theirs."""
        if (length := self.headers["Content-Length"]) is not None:
            yield self.rfile.read(int(length))
            return
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def upload(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Where Git LFS puts an object."""
        return asked | {"actions": {"upload": {"href": f"http://{self.headers['Host']}/objects/{asked['oid']}"}}}

    def commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        """Write the files of a commit."""
        for line in (line for line in lines if line["key"] != "header"):
            value = line["value"]
            content = self.server.objects[value["oid"]] if line["key"] == "lfsFile" else b64(value["content"])
            path = self.server.root / name / value["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def told(self, value: Any) -> None:
        """Answer with JSON."""
        self.answer(json.dumps(value).encode(), {"Content-Type": "application/json"})

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


def b64(text: str) -> bytes:
    """What was written in base 64."""
    return base64.b64decode(text)


def reach_hub(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Have the client of this process use the hub at `url`, although tests are offline; large files go by Git LFS."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    # The Hub's own storage of chunks is another service, which this one is not.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)


@contextmanager
def writable_hub(root: Path, token: str) -> Iterator[tuple[str, dict[str, bool]]]:
    """The same for who has a token; the URL, and the repositories that were made: whether they are private."""
    with _serving(root, token) as server:
        yield f"http://127.0.0.1:{server.server_port}", server.private


@contextmanager
def hub(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve the folders of `root` as OWNER/FOLDER; the URL, and the files that were sent."""
    with _serving(root, "") as server:
        yield f"http://127.0.0.1:{server.server_port}", server.sent


@contextmanager
def _serving(root: Path, token: str) -> Iterator[_Hub]:
    server = _Hub(("127.0.0.1", 0), _Handler)
    server.root, server.sent, server.token, server.private, server.objects = root, [], token, {}, {}
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
