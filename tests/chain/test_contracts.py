"""The contracts' own tests and the artefacts made of them; needs `npm install` in chain/contracts, and no network."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from chain import artefacts

PROJECT = Path(__file__).parents[2] / "chain" / "contracts"
BINARIES = PROJECT / "node_modules" / ".bin"
CONTRACTS = ["PublicLedger", "PrivateLedger"]

pytestmark = [
    pytest.mark.chain,
    pytest.mark.skipif(not (BINARIES / "forge").exists(), reason="run `npm install` in chain/contracts first"),
]


def forge(*words: str) -> str:
    environment = {**os.environ, "PATH": f"{BINARIES}:{os.environ['PATH']}"}
    result = subprocess.run(
        [BINARIES / "forge", *words], cwd=PROJECT, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.slow
def test_the_committed_artefacts_are_what_the_sources_compile_to(tmp_path: Path) -> None:
    forge("build", "--force", "--skip", "test", "--out", str(tmp_path), "--cache-path", str(tmp_path / "cache"))
    for name in CONTRACTS:
        built = json.loads((tmp_path / f"{name}.sol" / f"{name}.json").read_text())
        committed = artefacts.load(name)
        assert built["abi"] == committed.abi
        assert built["bytecode"]["object"] == committed.bytecode


@pytest.mark.slow
def test_the_contracts_pass_their_own_tests_at_the_recorded_gas() -> None:
    assert " 0 failed" in forge("snapshot", "--check", "--no-match-contract", "Invariant")


@pytest.mark.slow
def test_every_line_of_the_contracts_is_covered() -> None:
    lines = [line for line in forge("coverage", "--report", "summary").splitlines() if line.startswith("| src/")]
    assert len(lines) == 3
    assert all(line.split("|")[2].strip().startswith("100.00%") for line in lines), lines
