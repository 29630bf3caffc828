"""A clean checkout under Flower's own command, and an installed wheel."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from core.places import State
from server_app.events import EventLog
from tests.commands import PATIENCE_SECONDS, World

PROJECT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.chain]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that git knows, as they are now."""
    folder = tmp_path / "checkout"
    git = shutil.which("git")
    if git is None or not (PROJECT / ".git").exists():
        pytest.skip("needs a git checkout")
    names = subprocess.run([git, "ls-files", "-z"], cwd=PROJECT, capture_output=True, check=True).stdout
    for name in names.decode().split("\0"):
        if (PROJECT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(PROJECT / name, folder / name)
    return folder


@pytest.fixture
def flower(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment with a Flower home and ports of its own, whose SuperLink is ended afterwards."""
    home = tmp_path / "flower"
    ports = (free_port(), free_port())
    names = ("FLWR_LOCAL_SUPERLINK_HTTP_API_PORT", "FLWR_LOCAL_CONTROL_API_PORT")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    yield {**os.environ, "PATH": path, "FLWR_HOME": str(home), **{n: str(p) for n, p in zip(names, ports, strict=True)}}
    for process in psutil.process_iter():
        try:
            if process.environ().get("FLWR_HOME") == str(home):
                process.send_signal(signal.SIGTERM)
        except psutil.Error:
            continue


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_flower_runs_a_clean_checkout(checkout: Path, flower: dict[str, str], world: World) -> None:
    settings = {"state": str(world.state), "base": str(world.base), "data": str(world.data), "quantisation": "none"}
    numbers = {
        "rounds": 1,
        "local-steps": 2,
        "batch-size": 2,
        "max-length": 64,
        "rank": 4,
        "alpha": 8.0,
        "evaluate-limit": 4,
    }
    overrides = " ".join(f"{name}={json.dumps(value)}" for name, value in (settings | numbers).items())
    command = [sys.executable, Path(sys.executable).parent / "flwr", "run", ".", "--run-config", overrides, "--stream"]
    done = subprocess.run(
        command, cwd=checkout, env=flower, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = State(world.state).runs()
    assert EventLog.read(State(world.state).events(run.name))[0][-1]["event"] == "finished", done.stdout
    assert world.command("status").json["rounds"][0]["aggregate"] == world.inline().json["rounds"][0]["aggregate"]
    assert world.command("verify", run.name, "--strict").json["ok"]


def test_an_installed_wheel_runs_everything_embedded(checkout: Path, tmp_path: Path) -> None:
    site, state = tmp_path / "site", tmp_path / "state"
    pip = [sys.executable, "-m", "pip", "--quiet"]
    wheels = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(checkout)]
    subprocess.run([*pip, *wheels], check=True, timeout=PATIENCE_SECONDS)
    (wheel,) = tmp_path.glob("covenant-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True)
    code = "import assets, console.entry as e; assert __import__('sys').argv.pop(1) in assets.__file__; e.main()"
    settings = [word for s in ("local-steps=1", "batch-size=1", "evaluate-limit=1") for word in ("--set", s)]
    done = subprocess.run(
        [sys.executable, "-c", code, str(site), "run", "--backend", "inline", "--rounds", "1", *settings,
         "--state", str(state), "--json"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["status"] == "completed"
    assert set(result["organisations"]) == {"coding", "financial", "mathematical", "medical"}
    World(tmp_path, tmp_path, state).command("chain stop")
