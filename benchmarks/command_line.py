"""Runs `foedus` as a user does, in a process of its own."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOEDUS = Path(sys.executable).with_name("foedus")
"""Beside this interpreter: the version under test, not one on the PATH."""


def foedus(*arguments: str) -> dict[str, Any]:
    """The JSON object that a command prints; raises RuntimeError with the end of its messages when it fails."""
    done = subprocess.run([FOEDUS, *arguments, "--json"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"foedus {' '.join(arguments)} exited {done.returncode}: {done.stderr[-500:]}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def given(settings: Mapping[str, object]) -> list[str]:
    """Settings as options of `foedus run`."""
    values = {name: str(value).lower() if isinstance(value, bool) else value for name, value in settings.items()}
    return [word for name, value in values.items() for word in ("--set", f"{name}={value}")]
