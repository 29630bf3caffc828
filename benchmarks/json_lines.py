"""Files of JSON objects, one a line."""

import json
from pathlib import Path
from typing import Any


def read(file: Path) -> list[dict[str, Any]]:
    """The object of every line; only a newline ends one, and empty lines are none."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
