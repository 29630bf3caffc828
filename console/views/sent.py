"""What left a site, by its own log (client_app/sent.py): how many answers of each kind, and their bytes."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from console.options import read_file
from core.canonical import parse_json
from core.errors import FormatError, UsageError

Json = dict[str, Any]

KINDS = {
    "train": "updates, and what keeps one back",
    "evaluate": "losses on held-out records",
    "query.bind": "who takes part, and with how many records",
    "query.check": "a dry run",
    "query.reveal": "a nonce for the seed",
    "query.consent": "consent to the genesis",
    "query.admission": "consent to new members",
    "query.offer": "an agent's bid",
    "query.delete": "receipts of what was deleted",
    "query.records": "whether it holds records to erase",
}
"""What answers of each kind say, in words."""
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
    """How much of a run left a site: `answers`, `bytes`, and `kinds` [(in words, answers, bytes)], largest first."""
    kinds: dict[str, tuple[int, int]] = {}
    for entry in (entry for entry in entries if entry["run"] == run):
        named = str(entry["what"])
        what = KINDS.get(named, named)
        answers, size = kinds.get(what, (0, 0))
        kinds[what] = answers + 1, size + entry["bytes"]
    rows = sorted(((what, *told) for what, told in kinds.items()), key=lambda row: (-row[2], row[0]))
    return {"answers": sum(row[1] for row in rows), "bytes": sum(row[2] for row in rows), "kinds": rows}
