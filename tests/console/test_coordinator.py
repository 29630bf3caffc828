"""`foedus coordinator` says what it lacks; tests/integration/test_nodes.py has it at work."""

import os
import sys
import tomllib
from pathlib import Path

import pytest

from console import coordinator
from core.deployment import CoordinatorSettings
from tests.commands import foedus

SETTINGS = 'certificate = "server.pem"\nprivate-key = "server.key"\n'


def test_a_coordinator_without_nginx_or_certificates_is_not_started(tmp_path: Path) -> None:
    assert "coordinator.toml: expected a settings file" in foedus("coordinator", tmp_path).error
    (tmp_path / "coordinator.toml").write_text(SETTINGS + 'nginx = "no-such-program"\n')
    assert "nginx: expected a program, got 'no-such-program'" in foedus("coordinator", tmp_path).error
    (tmp_path / "coordinator.toml").write_text(SETTINGS + 'nginx = "true"\n')
    assert f"certificate: expected a file, got {tmp_path}/server.pem" in foedus("coordinator", tmp_path).error


def test_the_superlink_listens_on_the_loopback_and_knows_its_nodes_again(tmp_path: Path) -> None:
    (tmp_path / "coordinator.toml").write_text(SETTINGS)
    settings = CoordinatorSettings.read(tmp_path)
    command = list(map(str, coordinator.superlink_command(settings, tmp_path / "c.pem", tmp_path / "k.pem")))
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert "--enable-supernode-auth" in command
    assert command[command.index("--database") + 1] == str(tmp_path / "state" / "superlink.sqlite")


def test_flowers_command_line_is_connected_to_it(tmp_path: Path) -> None:
    (tmp_path / "coordinator.toml").write_text(SETTINGS + "control-port = 9999\n")
    settings = CoordinatorSettings.read(tmp_path)
    settings.state.mkdir()
    home = coordinator.flower_home(settings, tmp_path / "c.pem")
    connections = tomllib.loads((home / "config.toml").read_text())["superlink"]
    expected = {"address": "127.0.0.1:9999", "root-certificates": str(tmp_path / "c.pem")}
    assert connections[connections["default"]] == expected


def test_a_node_key_that_was_half_written_is_registered_once_it_is_whole(tmp_path: Path) -> None:
    path, gone = tmp_path / "medical.pub", tmp_path / "gone.pub"
    path.write_text("ecdsa-sha2-nist")
    gone.symlink_to(tmp_path / "nowhere")
    (tmp_path / "medical.txt").touch()
    half = coordinator.public_keys(tmp_path)
    assert [key_file for key_file, _ in half] == [path]
    assert coordinator.public_keys(tmp_path) == half
    path.write_text("ecdsa-sha2-nistp384 AAAA")
    os.utime(path, ns=(0, 1))
    assert [key_file for key_file, _ in coordinator.public_keys(tmp_path) - half] == [path]


@pytest.mark.parametrize(
    ("code", "how", "known"),
    [
        ("""print('{"success": true, "node-id": 5}')""", "registered as 5", True),
        ("print('Public key already in use.')", "registered before", True),
        ("raise SystemExit('no answer')", "no answer", False),
    ],
)
def test_it_says_what_became_of_a_node(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    code: str,
    how: str,
    known: bool,
) -> None:
    monkeypatch.setattr(coordinator, "script", lambda _: [sys.executable, "-c", code])
    assert coordinator.register(tmp_path / "medical.pub", {}) is known
    assert capsys.readouterr().err == f"Node medical: {how}\n"


def test_a_node_that_was_not_registered_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, asked, answers = 100.0, [], iter([True, False, True])

    def register(path: Path, _environment: dict[str, str]) -> bool:
        asked.append(path.name)
        return next(answers)

    monkeypatch.setattr(coordinator, "register", register)
    monkeypatch.setattr("console.coordinator.time.monotonic", lambda: now)
    for name in ("coding", "medical"):
        (tmp_path / f"{name}.pub").touch()
    due: dict[tuple[Path, int], float] = {}
    for seconds in (0, 1, 60, 60):
        now += seconds
        coordinator.register_due(tmp_path, {}, due)
    assert asked == ["coding.pub", "medical.pub", "medical.pub"]
