"""`make bundle`: what a node runs with, carried to a machine without a package index."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_a_bundle_installs_a_node_without_an_index(tmp_path: Path) -> None:
    bundle, fresh = tmp_path / "bundle", tmp_path / "fresh"
    subprocess.run(["make", "bundle", f"BUNDLE={bundle}"], cwd=ROOT, check=True)
    subprocess.run([sys.executable, "-m", "venv", fresh], check=True)
    # No proxy, no index, no configuration of pip's: nothing but the folder.
    offline = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1"}

    def pip(*arguments: str | Path) -> None:
        command = [fresh / "bin" / "pip", "install", "--quiet", "--find-links", bundle, "--no-deps", *arguments]
        subprocess.run(command, env=offline, check=True)

    pip("--require-hashes", "-r", bundle / "node.txt")
    pip("foedus")
    # torch, which the bundle leaves to the machine, is loaded by what computes alone.
    for arguments in (["--version"], ["doctor", "--help"], ["node", "--help"], ["keys", "new", tmp_path / "own.key"]):
        done = subprocess.run([fresh / "bin" / "foedus", *arguments], env=offline, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
    found = subprocess.run(
        [fresh / "bin" / "python", "-c", "import chain.survey, console.monitoring.node, core; print(core.__file__)"],
        env=offline, capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    assert str(fresh) in found.stdout
