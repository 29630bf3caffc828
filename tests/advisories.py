"""`python -m tests.advisories PIP-AUDIT LOCK`: what is known against the packages of a lock.

pip-audit reports packages that it could not look up beside those without a finding, and exits 0 for both: a service
that cannot be reached would look like a clean bill. Exit 0: all were looked up and nothing is known; 1: findings;
2: not all were looked up.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any


def verdict(report: Mapping[str, Any]) -> tuple[int, list[str]]:
    """The exit code for pip-audit's report, and the lines to show."""
    packages = report["dependencies"]
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    known = [
        f"{package['name']} {package['version']}: {found['id']}, mended in {', '.join(found['fix_versions']) or 'none'}"
        for package in packages
        for found in package.get("vulns", ())
    ]
    looked_up = len(packages) - len(unknown)
    lines = [*known, f"{looked_up} of {len(packages)} packages looked up, {len(known)} findings"]
    if unknown:
        lines.append(f"expected an answer on every package, got none on {len(unknown)}: is the service reached?")
    return (1 if known else 2 if unknown or not packages else 0), lines


def main(program: str, lock: str) -> int:
    """Ask, print, and return the exit code."""
    options = ["--disable-pip", "--require-hashes", "-r", lock, "-f", "json", "--progress-spinner", "off"]
    done = subprocess.run([program, *options], capture_output=True, text=True, check=False)
    try:
        code, lines = verdict(json.loads(done.stdout))
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        code, lines = 2, [f"expected a report of the advisory service, got {last[:200]}"]
    print("\n".join(lines))
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
