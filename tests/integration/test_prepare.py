"""The job that prepares the federation of docker/compose.yaml, run without containers on a real chain."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from chain.devnet.anvil import binary
from console.backends.children import free_port
from core.errors import UsageError
from tests.integration.deployed import listens, until

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.chain]


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_one_job_funds_founds_joins_and_admits_and_may_run_again(tmp_path: Path) -> None:
    try:
        anvil = binary()
    except UsageError as error:
        pytest.skip(str(error))
    port, federation, organisations = free_port(), tmp_path / "federation", tmp_path / "organisations"
    federation.mkdir(mode=0o700)  # as the images have it
    organisations.mkdir()
    url = f"http://127.0.0.1:{port}"
    text = (ROOT / "docker" / "federation.toml").read_text(encoding="utf-8")
    text = (
        text.replace("http://chain:8545", url).replace('"coordinator"', '"localhost"').replace("smollm2", "foedus-tiny")
    )
    (tmp_path / "federation.toml").write_text(text)
    process = subprocess.Popen([anvil, "--port", str(port), "--silent"], stdin=subprocess.DEVNULL)
    try:
        until(lambda: listens(port), tmp_path)
        environment = {
            **os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "CHAIN": url,
            "FEDERATION_FILE": str(tmp_path / "federation.toml"), "FEDERATION": str(federation),
            "ORGANISATIONS": str(organisations), "DATA": str(ROOT / "assets" / "samples"),
        }  # fmt: skip
        for _ in range(2):
            subprocess.run(["bash", ROOT / "docker" / "prepare.sh"], env=environment, check=True, cwd=tmp_path)
    finally:
        process.terminate()
        process.wait(timeout=60)
    names = ["coding", "financial", "medical"]
    assert sorted(path.stem for path in (federation / "admitted").iterdir()) == names
    for name in names:
        node = tomllib.loads((organisations / name / "node" / "node.toml").read_text())
        assert node["metrics"] == "0.0.0.0:9465"
        assert node["pin-coordinator"] == json.loads((federation / "own.json").read_text())["address"]
    assert 'metrics = "0.0.0.0:9464"' in (federation / "coordinator.toml").read_text()
