"""`foedus node` starts nothing that it cannot use; tests/integration/test_nodes.py has it at work."""

import stat
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from console import node
from console.backends import children
from core import keys
from core.deployment import NodeSettings
from tests.commands import foedus, make_data

NODE = 'organisation = "medical"\nsuperlink = "localhost:1"\ndata = "data"\npin-coordinator = "0x1"\n'


def folder(path: Path, more: str) -> Path:
    (path / "node.toml").write_text(NODE + more)
    return path


def test_a_node_whose_key_or_signer_cannot_be_used_is_not_started(tmp_path: Path) -> None:
    assert "node.toml: expected a settings file" in foedus("node", tmp_path).error
    assert f"key file {tmp_path}/own.key: expected" in foedus("node", folder(tmp_path, 'key-file = "own.key"')).error
    assert "is `foedus signer` up?" in foedus("node", folder(tmp_path, 'signer = "none.sock"')).error


def test_a_node_without_its_ca_is_not_started(tmp_path: Path) -> None:
    keys.create(tmp_path / "own.key")
    done = foedus("node", folder(tmp_path, 'key-file = "own.key"\nroot-certificates = "ca.pem"'))
    assert done.code == 2
    assert done.err.splitlines()[-1] == f"foedus: root-certificates: expected a file, got {tmp_path}/ca.pem"


def test_a_node_without_data_is_not_started(tmp_path: Path) -> None:
    keys.create(tmp_path / "own.key")
    done = foedus("node", folder(tmp_path, 'key-file = "own.key"'))
    assert done.code == 2
    assert done.err.splitlines()[-1].startswith(f"foedus: {tmp_path}/data: expected NAME.jsonl")


def test_the_supernode_gives_its_tasks_to_the_worker_alone(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    more = 'key-file = "own.key"\nroot-certificates = "ca.pem"\nnode-key = "node"\n'
    settings = NodeSettings.read(folder(tmp_path, more))
    command = list(map(str, node.supernode_command(settings, 9101)))
    assert command[command.index("--isolation") + 1] == "process"
    secret = Path(command[command.index("--superexec-auth-secret-file") + 1])
    assert (len(secret.read_bytes()), stat.S_IMODE(secret.stat().st_mode)) == (32, 0o600)
    assert "--insecure" not in command
    assert "--node-config" not in command
    first = secret.read_bytes()
    node.supernode_command(settings, 9101)
    assert secret.read_bytes() != first, "each start has a secret of its own"


def test_a_supernode_that_ends_ends_the_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys.create(tmp_path / "own.key")
    make_data(tmp_path / "data")
    monkeypatch.setattr(node, "supernode_command", lambda *_: [sys.executable, "-c", "raise SystemExit(3)"])
    done = foedus("node", folder(tmp_path, 'key-file = "own.key"'))
    assert done.code == 1
    assert "the SuperNode ended with status 3" in done.err.splitlines()[-1]


def test_a_supernode_that_has_served_is_started_again_but_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys.create(tmp_path / "own.key")
    make_data(tmp_path / "data")
    starts, python = tmp_path / "starts", sys.executable
    code = f"from pathlib import Path; Path({str(starts)!r}).open('a').write('x'); raise SystemExit(3)"
    monkeypatch.setattr(node, "supernode_command", lambda *_: [python, "-S", "-c", code])
    # The first has served for 100 s when it ends, the others for none.
    first = iter([0.0])
    clock = SimpleNamespace(monotonic=lambda: next(first, 100.0), sleep=lambda _: time.sleep(0.02))
    monkeypatch.setattr(node, "time", clock)
    monkeypatch.setattr(children, "time", clock)
    monkeypatch.setattr(node.sys, "executable", "/bin/true")  # the worker, which is another test's
    done = foedus("node", folder(tmp_path, 'key-file = "own.key"'))
    assert "The SuperNode ended with status 3: starting another" in done.err
    assert "the SuperNode ended with status 3: its log above says why" in done.err
    assert len(starts.read_text()) == 1 + node._MOST_FAILURES + 1
