"""Locks: every package by version and hash, in the versions of the lists, and no build that depends on the machine."""

import re
import subprocess
import sys
from typing import Any

import pytest
from packaging.utils import canonicalize_name

from tests.advisories import verdict
from tests.locks import LISTS, LOCKS, ROOT, locked, required

ENTRY = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>[^\s;]+)(?P<hashes>(?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n")


def entries(name: str) -> dict[str, str]:
    text = (LOCKS / f"{name}.txt").read_text(encoding="utf-8")
    found = {match["name"]: match["version"] for match in ENTRY.finditer(text)}
    assert ENTRY.sub("", text) == "", "expected versions with hashes alone"
    return found


@pytest.mark.parametrize("name", LISTS)
def test_a_lock_has_a_version_and_hashes_for_everything_that_its_lists_bring(name: str) -> None:
    assert entries(name) == locked(LISTS[name]), "run `make lock`"


@pytest.mark.parametrize("name", LISTS)
def test_a_lock_has_the_versions_of_its_lists_and_no_torch(name: str) -> None:
    found = entries(name)
    pins = {canonicalize_name(r.name): str(r.specifier)[2:] for file in LISTS[name] for r in required(ROOT / file)}
    assert pins.pop("torch")
    assert {package: found[package] for package in pins} == pins
    assert not [package for package in found if re.match(r"torch$|triton|nvidia|cuda", package)]


def test_a_node_has_the_versions_that_a_run_is_tested_with() -> None:
    run, node = entries("run"), entries("node")
    assert node.items() <= run.items()
    assert "ray" not in node


def test_a_node_runs_with_its_lock_alone() -> None:
    missing = sorted(entries("run").keys() - entries("node").keys())
    modules = {"py-evm": "eth", "python-dateutil": "dateutil", "pyyaml": "yaml"}
    absent = [modules.get(package, package.replace("-", "_")) for package in missing]
    needed = "import client_app.app, console.cli, console.node, console.signer"
    script = f"import sys; sys.modules.update(dict.fromkeys({absent})); {needed}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]


def test_no_index_stands_in_a_lock() -> None:
    for path in LOCKS.glob("*.txt"):
        assert "://" not in path.read_text(encoding="utf-8"), path
    contracts = (ROOT / "chain" / "contracts" / "package-lock.json").read_text(encoding="utf-8")
    assert '"resolved"' not in contracts
    assert '"integrity": "sha512-' in contracts


@pytest.mark.parametrize(
    ("packages", "code", "said"),
    [
        ([{"name": "a", "version": "1", "vulns": []}], 0, "1 of 1 packages looked up, 0 findings"),
        ([{"name": "a", "version": "1", "vulns": [{"id": "X-1", "fix_versions": ["2"]}]}], 1, "X-1, mended in 2"),
        ([{"name": "a", "skip_reason": "not found"}], 2, "got none on 1: is the service reached?"),
        ([], 2, "0 of 0"),
    ],
)
def test_an_audit_that_nobody_answered_is_not_a_clean_one(packages: list[Any], code: int, said: str) -> None:
    got, lines = verdict({"dependencies": packages})
    assert got == code
    assert said in "\n".join(lines)
