"""A clean checkout under Flower's own command, and an installed wheel."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from console.backends.children import free_port
from core.storage.events import EventLog
from core.storage.state_folder import State
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


def run_by_flower(checkout: Path, flower: dict[str, str], settings: dict[str, object]) -> str:
    """`flwr run . --stream` with these settings, and what it said."""
    overrides = " ".join(f"{name}={json.dumps(value)}" for name, value in settings.items())
    script = str(Path(sys.executable).parent / "flwr")
    command = [sys.executable, script, "run", ".", "--run-config", overrides, "--stream"]
    done = subprocess.run(
        command, cwd=checkout, env=flower, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_flower_runs_a_clean_checkout(checkout: Path, flower: dict[str, str], world: World) -> None:
    places: dict[str, object] = {
        "state": str(world.state),
        "base": str(world.base),
        "data": str(world.data),
        "quantisation": "none",
        "participation": "all",
    }
    numbers: dict[str, object] = {
        "rounds": 1,
        "local-steps": 2,
        "batch-size": 2,
        "max-length": 64,
        "rank": 4,
        "alpha": 8.0,
        "evaluate-limit": 4,
    }
    said = run_by_flower(checkout, flower, places | numbers)
    (run,) = State(world.state).runs()
    events = State(world.state).events(run.name)
    assert EventLog.read(events)[0][-1]["event"] == "finished", said
    question = {"prompt": "coding 3?", "response": "cod 9", "method": "shapley"}
    said = run_by_flower(checkout, flower, places | question | {"mode": "attribute"})
    assert "Taught by " in said
    traced = world.command("attribute", *(word for name, text in question.items() for word in (f"--{name}", text)))
    assert EventLog.read(events)[0][-1]["trace"]["digest"] == traced.json["digest"]
    assert world.command("status").json["rounds"][0]["aggregate"] == world.inline().json["rounds"][0]["aggregate"]
    assert world.command("verify", run.name, "--strict").json["ok"]


def test_an_installed_wheel_runs_everything_embedded(checkout: Path, tmp_path: Path) -> None:
    site, state = tmp_path / "site", tmp_path / "state"
    pip = [sys.executable, "-m", "pip", "--quiet"]
    wheels = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(checkout)]
    subprocess.run([*pip, *wheels], check=True, timeout=PATIENCE_SECONDS)
    (wheel,) = tmp_path.glob("foedus-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True)
    code = "import assets, console.entry as e; assert __import__('sys').argv.pop(1) in assets.__file__; e.main()"

    def installed(*arguments: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-c", code, str(site), *arguments, "--state", str(state), "--json"],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    chosen = ("local-steps=1", "batch-size=1", "evaluate-limit=1", "participation=all")
    settings = [word for setting in chosen for word in ("--set", setting)]
    result = installed("run", "--backend", "inline", "--rounds", "1", *settings)
    assert result["status"] == "completed"
    assert set(result["organisations"]) == {"coding", "financial", "mathematical", "medical"}
    page = tmp_path / "trace.html"
    traced = installed("attribute", "--prompt", "Which dose?", "--response", "Two a day.", "--html", str(page))
    assert traced["response"]["scores"].keys() == result["organisations"].keys()
    assert page.read_text(encoding="utf-8").count('class="token"') == len(traced["tokens"])
    World(tmp_path, tmp_path, state).command("chain stop")
