"""`python -m tests.locks`: write the lock files, from what is installed here and was tested.

A lock names every package that a list of requirements brings, by version and by the hashes of its files, as the index
gives them. torch stays out, with what only its CUDA build brings: builds differ, so its pin goes first and by version
alone. Why not pip-compile: docs/decisions.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
LOCKS = ROOT / "locks"
LISTS = {
    "run": ("requirements.txt", "requirements-base.txt"),
    "node": ("requirements-node.txt", "requirements-base.txt"),
    "dev": ("requirements.txt", "requirements-base.txt", "requirements-dev.txt"),
}
"""What each lock is made of. Packages of requirements-base.txt are installed without what they ask for."""
_BUILDS = re.compile(r"torch|triton|nvidia-.*|cuda-.*")


def main() -> None:
    """Write all locks; raises SystemExit when a package is not installed here, or the index has no hashes."""
    LOCKS.mkdir(exist_ok=True)
    for name, files in LISTS.items():
        pins = "".join(f"{package}=={version}\n" for package, version in sorted(locked(files).items()))
        with tempfile.NamedTemporaryFile("w", suffix=".in") as given:
            given.write(pins)
            given.flush()
            options = ("--generate-hashes", "--no-deps", "--no-header", "--no-annotate", "--quiet")
            made = subprocess.run(["uv", "pip", "compile", *options, given.name], capture_output=True, check=False)
        if made.returncode:
            sys.exit(made.stderr.decode())
        (LOCKS / f"{name}.txt").write_bytes(made.stdout)


def locked(files: Iterable[str]) -> dict[str, str]:
    """The version of every package that requirement files bring, theirs included, by name."""
    found: dict[str, str] = {}
    for file in files:
        for requirement in required(ROOT / file):
            _add(requirement, found, alone=file == "requirements-base.txt")
    return {name: version for name, version in found.items() if not _BUILDS.fullmatch(name)}


def required(path: Path) -> Iterator[Requirement]:
    """The requirements in a file."""
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.partition("#")[0].strip()
        if text and not text.startswith("-r"):
            yield Requirement(text)


def _add(requirement: Requirement, found: dict[str, str], *, alone: bool) -> None:
    """Add a package, and unless it is `alone` what it asks for here."""
    left, seen = [(requirement.name, "")] + [(requirement.name, extra) for extra in requirement.extras], set()
    while left:
        package, extra = left.pop()
        name = canonicalize_name(package)
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            installed = distribution(package)
        except PackageNotFoundError:
            sys.exit(f"expected {package} to be installed, got none: run `make setup`")
        found[name] = installed.version
        for text in () if alone else installed.requires or ():
            asked = Requirement(text)
            if asked.marker is None or asked.marker.evaluate({"extra": extra}):
                left += [(asked.name, ""), *((asked.name, more) for more in asked.extras)]


if __name__ == "__main__":
    main()
