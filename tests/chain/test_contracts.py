"""The contracts' own tests and the artefacts made of them; most need `npm ci` in chain/contracts, none a network."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from chain import artefacts

PROJECT = Path(__file__).parents[2] / "chain" / "contracts"
BINARIES = PROJECT / "node_modules" / ".bin"
CONTRACTS = ["PublicLedger", "PrivateLedger"]

needs_forge = pytest.mark.skipif(
    not (BINARIES / "forge").exists(), reason="run `npm ci --ignore-scripts` in chain/contracts first"
)


def test_the_lock_pins_what_the_package_asks_for_and_names_no_registry() -> None:
    asked = json.loads((PROJECT / "package.json").read_text())["devDependencies"]
    lock = json.loads((PROJECT / "package-lock.json").read_text())["packages"]
    locked = {path.removeprefix("node_modules/"): package for path, package in lock.items() if path}
    assert {name: locked[name]["version"] for name in asked} == asked == lock[""]["devDependencies"]
    assert all(package["integrity"].startswith("sha512-") for package in locked.values())
    assert [name for name, package in locked.items() if "resolved" in package] == []
    # `npm ci` refuses a lock that lacks one of the binaries' platforms.
    assert all(name in locked for package in locked.values() for name in package.get("optionalDependencies", ()))


def forge(*words: str) -> str:
    environment = {**os.environ, "PATH": f"{BINARIES}:{os.environ['PATH']}"}
    result = subprocess.run(
        [BINARIES / "forge", *words], cwd=PROJECT, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@needs_forge
@pytest.mark.chain
@pytest.mark.slow
def test_the_committed_artefacts_are_what_the_sources_compile_to(tmp_path: Path) -> None:
    forge("build", "--force", "--skip", "test", "--out", str(tmp_path), "--cache-path", str(tmp_path / "cache"))
    for name in CONTRACTS:
        built = json.loads((tmp_path / f"{name}.sol" / f"{name}.json").read_text())
        committed = artefacts.load(name)
        assert built["abi"] == committed.abi
        assert built["bytecode"]["object"] == committed.bytecode
        assert bytes.fromhex(built["deployedBytecode"]["object"][2:]) == committed.runtime


@needs_forge
@pytest.mark.chain
@pytest.mark.slow
def test_the_contracts_pass_their_own_tests_at_the_recorded_gas() -> None:
    assert " 0 failed" in forge("snapshot", "--check", "--no-match-contract", "Invariant")


@needs_forge
@pytest.mark.chain
@pytest.mark.slow
def test_every_line_of_the_contracts_is_covered() -> None:
    lines = [line for line in forge("coverage", "--report", "summary").splitlines() if line.startswith("| src/")]
    assert len(lines) == 3
    assert all(line.split("|")[2].strip().startswith("100.00%") for line in lines), lines
