"""What left a site, by its own log (client_app/sent.py): how many answers of each kind, and their bytes."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from console.options import read_file
from core.canonical import parse_json
from core.errors import FormatError, UsageError

Json = dict[str, Any]

_LARGEST = 64 * 2**20
"""Bytes of a log: an answer takes some 300."""


def read_log(path: Path) -> list[Json]:
    """The entries of a log that an organisation handed over; raises UsageError for a file that is none."""
    entries = []
    lines = read_file("log", path, "an organisation's sent.jsonl", _LARGEST).splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            entry = parse_json(line)
            known = isinstance(entry["run"], str) and isinstance(entry["what"], str) and type(entry["bytes"]) is int
        except (FormatError, KeyError, TypeError):
            known = False
        if not known:
            raise UsageError(f"{path}:{number}: expected an entry with run, what and bytes, got none")
        entries.append(entry)
    return entries


def totals(entries: Iterable[Json], run: str) -> Json:
    """How much of a run left a site: `answers`, `bytes`, and `kinds` [(what, answers, bytes)], the largest first."""
    kinds: dict[str, tuple[int, int]] = {}
    for entry in (entry for entry in entries if entry["run"] == run):
        answers, size = kinds.get(entry["what"], (0, 0))
        kinds[entry["what"]] = answers + 1, size + entry["bytes"]
    rows = sorted(((what, *told) for what, told in kinds.items()), key=lambda row: (-row[2], row[0]))
    return {"answers": sum(row[1] for row in rows), "bytes": sum(row[2] for row in rows), "kinds": rows}
