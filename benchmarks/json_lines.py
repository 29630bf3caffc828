"""Files of JSON objects, one a line."""

import json
from pathlib import Path
from typing import Any


def read(file: Path) -> list[dict[str, Any]]:
    """The object of every line; only a newline ends one, and empty lines are none.

    Ends the process, with file and line, for a line that is none.
    """
    found: list[dict[str, Any]] = []
    for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), 1):
        try:
            value = json.loads(line or "{}")
        except ValueError as error:
            raise SystemExit(f"{file}:{number}: expected an object, got {error}") from error
        if not isinstance(value, dict):
            raise SystemExit(f"{file}:{number}: expected an object, got {line:.40}")
        found += [value] if line else []
    return found
