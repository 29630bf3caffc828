"""A run that one build began goes on under the next, and both can audit it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from core.storage.events import EventLog
from core.storage.state_folder import State
from tests.commands import PATIENCE_SECONDS, World
from tests.integration.test_kills import until

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.chain]


class Build:
    """The checkout under a version of its own: the same code, another number."""

    def __init__(self, folder: Path, version: str) -> None:
        info = folder / version / f"foedus-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: foedus\nVersion: {version}\n")
        self.environment = os.environ | {"PYTHONPATH": f"{info.parent}{os.pathsep}{ROOT}"}

    def start(self, *arguments: object) -> "subprocess.Popen[str]":
        command = [sys.executable, "-P", "-c", "from console.entry import main; main()", *map(str, arguments)]
        return subprocess.Popen(
            command, env=self.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def run(self, *arguments: object) -> str:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 0, err
        return out


def test_a_run_that_one_build_began_goes_on_under_the_next(base: Path, data: Path, tmp_path: Path) -> None:
    world, old, new = World(base, data, tmp_path / "state"), Build(tmp_path, "1.0.0"), Build(tmp_path, "1.1.0")
    assert (old.run("--version"), new.run("--version")) == ("foedus 1.0.0\n", "foedus 1.1.0\n")
    state = State(world.state)
    process = old.start(*world.run("--backend", "inline", rounds=3))
    name = until(lambda: next((path.stem for path in (world.state / "settings").glob("*.json")), None), process)
    until(lambda: any(e["event"] == "evaluated" for e in EventLog.read(state.events(str(name)))[0]), process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    place = ("--state", world.state)
    assert new.run("run", "--resume", name, "--backend", "inline", *place, "--json")
    assert [signed.value.round for signed in state.run(str(name)).lineage(0)] == [1, 2, 3]
    for build in (old, new):
        assert '"ok": true' in build.run("verify", name, *place, "--json").replace('"ok":true', '"ok": true')
    assert "foedus 1.0.0" in new.run("status", name, *place, "--json"), "what the founders registered with"
    new.run("chain", "stop", *place)
