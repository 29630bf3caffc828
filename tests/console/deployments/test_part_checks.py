"""The parts, each from its folder: a coordinator as nodes see it, and as it sees itself."""

import json
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from pathlib import Path

import pytest

from chain.joining import JoinKit
from console.backends.children import free_port
from console.deployments import part_checks
from console.deployments.checkup import Check
from console.deployments.organisation_folder import Choices, join
from console.deployments.part_checks import checks_of
from console.monitoring.server import HealthReport, monitored
from console.papers.base_signature import NOT_SIGNED
from tests import federation as f
from tests.console.deployments.founded import FILE, founded


class Door(BaseHTTPRequestHandler):
    """What nginx answers to `foedus doctor`."""

    product = f"foedus {version('foedus')}"
    late = 0.0
    body = b""

    def do_GET(self) -> None:
        body = self.body or json.dumps({"product": self.product}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string(int((timestamp or time.time()) + self.late))

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def door(tmp_path: Path) -> Iterator[tuple[HTTPServer, Path]]:
    """The coordinator's port, and its folder."""
    server = HTTPServer(("127.0.0.1", 0), Door)
    ports = f'127.0.0.1:{server.server_port}"\ncontrol-port = {free_port()}\n'
    found = founded(tmp_path, FILE.replace('127.0.0.1:9092"\n', ports))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(found.folder / "server.pem", found.folder / "server.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server, found.folder
    server.shutdown()
    thread.join()
    server.server_close()


def node(tmp_path: Path, coordinator: Path) -> Path:
    """An organisation's folder, with data."""
    home = tmp_path / "medical"
    kit = JoinKit.from_json((coordinator / "kits" / "medical.json").read_bytes())
    join(kit, home, Choices())
    (home / "node" / "data" / "medical.jsonl").write_text(
        "".join(f'{{"question": "{number}?", "answer": "A."}}\n' for number in range(20))
    )
    settings = home / "node" / "node.toml"
    settings.write_text("".join(line for line in settings.read_text().splitlines(True) if "chain-url" not in line))
    return home


def checked(folder: Path) -> dict[str, Check]:
    return {one.name: one for one in checks_of(folder)}


def test_a_node_sees_its_coordinator_its_data_and_its_base(door: tuple[HTTPServer, Path], tmp_path: Path) -> None:
    found = checked(node(tmp_path, door[1]))
    for name in ("node key", "data", "base", "certificate's days", "certificate's names", "version", "clock"):
        assert found[name].ok, found[name]
    assert found["base"].got.endswith(NOT_SIGNED)
    assert found["data"].got.startswith("19 records to train on, 1 held out; digest 0x")
    assert (found["site policy"].ok, found["site policy"].got) == (True, "approve never")
    assert not found["key"].ok, "no signer runs"
    assert "foedus signer" in found["signer"].advice
    assert found["signer's key"].ok


def test_another_version_and_clock_are_found(
    door: tuple[HTTPServer, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Door, "product", "foedus 9.9.9")
    monkeypatch.setattr(Door, "late", 3600.0)
    found = checked(node(tmp_path, door[1]) / "node")
    assert (found["version"].ok, found["version"].got) == (False, "foedus 9.9.9")
    assert not found["clock"].ok
    assert -3602 < int(found["clock"].got.removesuffix(" s")) < -3300


@pytest.mark.parametrize("body", [b"[1]", b"[" * 100_000, b'{"version": 1}', b"<html>"])
def test_whatever_a_coordinator_answers_is_a_finding(
    door: tuple[HTTPServer, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    monkeypatch.setattr(Door, "body", body)
    found = checked(node(tmp_path, door[1]) / "node")
    assert not found["version"].ok
    assert found["version"].got
    assert found["clock"].ok


def test_a_node_without_coordinator_data_base_or_key_mode_is_told_each(tmp_path: Path) -> None:
    coordinator = founded(tmp_path, FILE.replace("9092", "9")).folder
    home = node(tmp_path, coordinator)
    (home / "node" / "data" / "medical.jsonl").unlink()
    (home / "node" / "node").chmod(0o644)
    (home / "node" / "policy.toml").write_text(f'bases = ["{f.other("base")}"]')
    found = checked(home / "node")
    for name in ("coordinator", "data", "node key", "base"):
        assert not found[name].ok, name
        assert found[name].advice


def test_a_coordinator_counts_whom_it_admitted(door: tuple[HTTPServer, Path]) -> None:
    found = checked(door[1])
    for name in ("certificate's key", "certificate's days", "certificate's names", "control port"):
        assert found[name].ok, found[name]
    assert (found["organisations"].ok, found["organisations"].got) == (False, "none")
    assert (found["port for nodes"].ok, found["port for nodes"].got) == (False, "another program")
    (door[1] / "server.key").chmod(0o644)
    assert not checked(door[1])["certificate's key"].ok


@dataclass
class Ill:
    """A part that says what is wrong with it."""

    problems: list[str]

    def look(self) -> HealthReport:
        return HealthReport(problems=self.problems)


def test_a_part_that_runs_is_asked_for_its_own_problems() -> None:
    listen = f"127.0.0.1:{free_port()}"
    assert part_checks.health("") == (True, "not watched: metrics names no address")
    assert part_checks.health(listen) == (True, "not started")
    with monitored(listen, Ill([])):
        assert part_checks.health(listen) == (True, "well")
    with monitored(listen, Ill(["the worker has ended", "no answer"])):
        assert part_checks.health(listen) == (False, "the worker has ended; no answer")
