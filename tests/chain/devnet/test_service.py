"""A background process that anybody starts and nobody owns; the service here is a few lines of a module of its own."""

import http.server
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from chain.devnet import service
from chain.devnet.service import LOCK, Service, announce, ended_when_interrupted, is_free, last_address
from core.errors import LedgerUnreachableError
from core.storage.lock import take
from tests.waiting import PATIENCE_SECONDS, until

CHAIN_ID = 7
STUB = """
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from chain.devnet.service import announce, become

class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps({"result": hex(7)}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass

folder = Path(sys.argv[1])
if "--fail" in sys.argv:
    sys.exit("the stub fails on purpose")
lock = become(folder)
server = HTTPServer(("127.0.0.1", 0), Handler)
announce(folder, f"http://127.0.0.1:{server.server_address[1]}")
server.serve_forever()
"""


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A service that answers with its chain id; its module lies beside the folder, where `python -m` finds it."""
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "stub_service.py").write_text(STUB)
    run = subprocess.run

    def with_stub(command: list[str], **options: object) -> object:
        options["env"]["PYTHONPATH"] += f":{modules}"  # type: ignore[index]  # of a dict
        return run(command, **options)  # type: ignore[call-overload]  # as it came

    monkeypatch.setattr("chain.devnet.service.subprocess.run", with_stub)
    found = Service(tmp_path / "folder", "stub_service", CHAIN_ID)
    yield found
    found.stop()


def pid_of(service: Service) -> int:
    return int(json.loads((service.folder / "service.json").read_text())["pid"])


def test_a_service_is_started_once_and_found_again(stub: Service) -> None:
    assert (stub.url(), stub.announced(), is_free(stub.folder)) == (None, None, True)
    url = stub.ensure()
    first = pid_of(stub)
    assert stub.ensure() == stub.url() == stub.announced() == url
    assert pid_of(stub) == first
    assert not is_free(stub.folder)
    assert last_address(stub.folder).port == int(url.rpartition(":")[2])


def test_a_service_outlives_its_starter_in_a_session_of_its_own(stub: Service) -> None:
    stub.ensure()
    assert os.getsid(pid_of(stub)) != os.getsid(0)


def test_a_service_ends_when_it_is_told_to(stub: Service) -> None:
    stub.ensure()
    assert stub.stop()
    assert not stub.stop()
    assert is_free(stub.folder)
    assert stub.announced() is None


def test_a_killed_service_is_started_again(stub: Service) -> None:
    stub.ensure()
    old = pid_of(stub)
    os.kill(old, signal.SIGKILL)
    until(lambda: is_free(stub.folder))
    assert stub.url() is None
    stub.ensure()
    assert pid_of(stub) != old


def test_a_service_that_fails_is_told_with_the_last_line_of_its_log(stub: Service) -> None:
    with pytest.raises(LedgerUnreachableError, match=f"{stub.folder} did not start: the stub fails on purpose"):
        replace(stub, arguments=("--fail",)).ensure()


def test_a_service_without_a_log_is_told_so(stub: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Service, "_start", lambda _self: True)
    with pytest.raises(LedgerUnreachableError, match="its log is empty"):
        stub.ensure()


def test_a_service_of_another_chain_does_not_answer_for_this_one(stub: Service) -> None:
    stub.ensure()
    other = replace(stub, chain_id=CHAIN_ID + 1)
    assert other.announced() is not None
    assert other.url() is None


@pytest.fixture
def web_server() -> Iterator[str]:
    """Something that speaks HTTP but is no node."""
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("reachable", [True, False])
def test_an_announced_url_that_is_no_node_does_not_answer(tmp_path: Path, web_server: str, reachable: bool) -> None:
    found = Service(tmp_path, "unused", CHAIN_ID)
    with take(tmp_path / LOCK):
        announce(tmp_path, web_server if reachable else "http://127.0.0.1:1")
        assert found.announced() is not None
        assert found.url() is None


def test_an_old_announcement_counts_only_while_its_process_lives(tmp_path: Path) -> None:
    announce(tmp_path, "http://127.0.0.1:1234")
    found = Service(tmp_path, "unused", CHAIN_ID)
    assert found.announced() is None
    assert last_address(tmp_path).port == 1234
    assert last_address(tmp_path / "elsewhere").port == 0


def test_a_process_that_does_not_end_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "STOP_SECONDS", 0.1)
    monkeypatch.setattr("chain.devnet.service.os.kill", lambda _pid, _signal: None)
    with take(tmp_path / LOCK):
        announce(tmp_path, "http://127.0.0.1:1")
        with pytest.raises(LedgerUnreachableError, match=f"process {os.getpid()} of {tmp_path} does not end"):
            Service(tmp_path, "unused", CHAIN_ID).stop()


def test_the_loser_of_a_race_leaves_at_once(tmp_path: Path) -> None:
    become = "import sys; from pathlib import Path; from chain.devnet.service import become; become(Path(sys.argv[1]))"
    with take(tmp_path / LOCK):
        loser = subprocess.run([sys.executable, "-c", become, str(tmp_path)], check=False)
    assert loser.returncode == 75


def test_a_service_inherits_nothing_that_is_about_its_starter(stub: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOEDUS_SECRET", "about the starter")
    stub.ensure()
    environment = Path(f"/proc/{pid_of(stub)}/environ").read_bytes()
    assert b"FOEDUS_SECRET" not in environment
    assert b"OMP_NUM_THREADS=1" in environment


def test_the_token_of_a_url_outlives_its_service_and_is_its_owners_alone(tmp_path: Path) -> None:
    token = last_address(tmp_path).token
    assert len(token) >= 32
    assert token != last_address(tmp_path).token
    announce(tmp_path, f"http://127.0.0.1:1234/{token}")
    assert last_address(tmp_path) == (1234, token)
    assert stat.S_IMODE((tmp_path / "service.json").stat().st_mode) == 0o600


def starting(state: Path, *services: Service, ending: type[BaseException]) -> None:
    """Start services in a block that ends with an exception."""
    with pytest.raises(ending):
        _end(state, services, ending)


def _end(state: Path, services: tuple[Service, ...], ending: type[BaseException]) -> None:
    with ended_when_interrupted(state):
        for each in services:
            each.ensure()
        raise ending


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit])
def test_what_was_started_is_ended_when_its_starter_is_interrupted(
    stub: Service, tmp_path: Path, ending: type[BaseException]
) -> None:
    started, before = (replace(stub, folder=tmp_path / "chain" / name) for name in ("started", "before"))
    before.ensure()
    starting(tmp_path, started, before, ending=ending)
    assert (is_free(started.folder), is_free(before.folder)) == (True, False)
    starting(tmp_path, started, ending=LedgerUnreachableError)
    with ended_when_interrupted(tmp_path):
        assert not is_free(started.folder)
    assert not is_free(started.folder)
    assert started.stop()
    assert before.stop()


def test_what_is_still_starting_is_ended_too(stub: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_ON_ITS_WAY_SECONDS", PATIENCE_SECONDS)
    late = replace(stub, folder=tmp_path / "chain" / "late")

    def start() -> None:
        with suppress(LedgerUnreachableError):  # it may be ended before it has answered whoever starts it
            late.ensure()

    timer = threading.Timer(0.5, start)
    timer.start()
    starting(tmp_path, ending=KeyboardInterrupt)
    timer.join()
    assert is_free(late.folder)
