"""A process of which there is one for each folder: its lock, what it announces, and how others find it."""

import json
import os
import subprocess
import textwrap
from pathlib import Path

import pytest

from chain.devnet.service import LOCK, Service, announce, is_free, last_port
from core.errors import LedgerUnreachableError
from core.storage.lock import take

MODULE = '''
"""A service that answers every request with one chain id; its folder is its argument."""
import json, sys, threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from chain.devnet.service import announce, become

class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.dumps({"result": hex(int(sys.argv[2]))}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): ...

folder = Path(sys.argv[1])
lock = become(folder)
server = HTTPServer(("127.0.0.1", 0), Handler)
announce(folder, f"http://127.0.0.1:{server.server_address[1]}")
server.serve_forever()
'''


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let services import what lies in tmp_path, too."""
    (tmp_path / "answering.py").write_text(textwrap.dedent(MODULE))
    (tmp_path / "failing.py").write_text("raise SystemExit('no room at this port')\n")
    root = Path(__file__).parents[3]
    run = subprocess.run

    def with_path(*args: object, env: dict[str, str], **options: object) -> object:
        return run(*args, env={**env, "PYTHONPATH": f"{root}{os.pathsep}{tmp_path}"}, **options)  # type: ignore[call-overload]

    monkeypatch.setattr("chain.devnet.service.subprocess.run", with_path)


def test_what_is_announced_counts_only_while_the_lock_is_held(tmp_path: Path) -> None:
    service = Service(tmp_path, "nothing", 1)
    assert last_port(tmp_path) == 0
    announce(tmp_path, "http://127.0.0.1:4711")
    assert service.announced() is None
    assert last_port(tmp_path) == 4711
    assert is_free(tmp_path)
    with take(tmp_path / LOCK):
        assert not is_free(tmp_path)
        assert service.announced() == "http://127.0.0.1:4711"
        assert json.loads((tmp_path / "service.json").read_text())["pid"] == os.getpid()
    assert is_free(tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []


def test_a_service_that_does_not_run_is_not_stopped(tmp_path: Path) -> None:
    service = Service(tmp_path, "nothing", 1)
    assert service.url() is None
    assert not service.stop()


@pytest.mark.usefixtures("modules")
def test_a_service_is_started_once_found_and_stopped(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "service"
    service = Service(folder, "answering", 31337, arguments=("31337",))
    url = service.ensure()
    pid = json.loads((folder / "service.json").read_text())["pid"]
    assert service.ensure() == service.url() == url
    assert json.loads((folder / "service.json").read_text())["pid"] == pid
    # Something that answers as another chain is not it.
    assert Service(folder, "answering", 1).url() is None
    assert service.stop()
    assert service.url() is None


@pytest.mark.usefixtures("modules")
def test_a_service_that_does_not_start_is_told_with_the_last_line_of_its_log(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnreachableError, match="no room at this port"):
        Service(tmp_path / "service", "failing", 1).ensure()
