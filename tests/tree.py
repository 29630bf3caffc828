"""The file tree at the end of README: `python -m tests.tree` writes it anew.

A module's line is the beginning of its docstring, a contract's its @title, a decision's its heading; any other file
keeps the text that it has.
"""

import ast
import re
import subprocess
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PACKAGES = (
    "core", "llm", "client_app", "server_app", "chain", "agents", "provenance", "unlearning", "console", "assets",
    "benchmarks",
)  # fmt: skip
_BLOCK = re.compile(r"(## The files\n.*?```text\n)(.*?)(```)", re.DOTALL)
_COLUMN = 26
_WIDTH = 120


def tracked() -> list[str]:
    """The files that have a line: what lies at the top, documents, settings, and every module with content."""
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return sorted((name for name in listing.splitlines() if _has_line(name)), key=_order)


def listed() -> dict[str, str]:
    """Path and description of every file in README's tree."""
    match = _BLOCK.search(README.read_text(encoding="utf-8"))
    found, folder = {}, ""
    for line in match[2].splitlines() if match else []:
        name, _, text = line.strip().partition(" ")
        if name.endswith("/"):
            folder = name
        else:
            found[f"{folder}{name}"] = text.strip()
    return found


def _order(name: str) -> tuple[str, str]:
    """By folder, the files at the top first."""
    return str(PurePosixPath(name).parent).lstrip("."), name


def _has_line(name: str) -> bool:
    package, _, rest = name.partition("/")
    if not rest:
        return True
    if package in PACKAGES:
        return (name.endswith(".py") and not name.endswith("__init__.py")) or "/contracts/src/" in name
    return package in {"conf", "docker", "docs"}


def _lines(names: list[str], known: dict[str, str]) -> Iterator[str]:
    for folder, files in groupby(names, key=lambda name: _order(name)[0]):
        if folder:
            yield f"{folder}/"
        indent = "  " if folder else ""
        for name in files:
            start = f"{indent}{PurePosixPath(name).name}".ljust(_COLUMN - 2)
            text = _shortened(_description(name, known.get(name, "")), _WIDTH - len(start) - 2)
            yield f"{start}  {text}".rstrip()


def _description(name: str, before: str) -> str:
    text = (ROOT / name).read_text(encoding="utf-8")
    if name.endswith(".py"):
        paragraph = " ".join((ast.get_docstring(ast.parse(text)) or before).split("\n\n")[0].split())
        return paragraph.split(". ")[0].rstrip(".:")
    if name.endswith(".sol"):
        title = re.search(r"@title (.*)", text)
        return title[1] if title else before
    if name.startswith("docs/decisions/"):
        return text.splitlines()[0].lstrip("# 0123456789.")
    return text.splitlines()[0].lstrip("# ").rstrip(".") if name.startswith("conf/") else before


def _shortened(text: str, room: int) -> str:
    """Cut at the last comma, colon or semicolon that fits, else between words."""
    if len(text) <= room:
        return text
    cut = max(text[:room].rfind(mark) for mark in (", ", ": ", "; "))
    return text[: cut if cut > 0 else text[:room].rfind(" ")]


def main() -> None:
    """Write the tree into README."""
    tree = "".join(f"{line}\n" for line in _lines(tracked(), listed()))
    text = README.read_text(encoding="utf-8")
    README.write_text(_BLOCK.sub(lambda match: match[1] + tree + match[3], text), encoding="utf-8")


if __name__ == "__main__":
    main()
