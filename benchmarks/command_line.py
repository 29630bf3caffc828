"""Runs `foedus` as a user does, in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

# Beside this interpreter: the version under test, not one on the PATH.
_FOEDUS = Path(sys.executable).with_name("foedus")


def foedus(*arguments: str) -> dict[str, Any]:
    """The JSON object that a command prints; raises RuntimeError with the end of its messages when it fails."""
    done = subprocess.run([_FOEDUS, *arguments, "--json"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"foedus {' '.join(arguments)} exited {done.returncode}: {done.stderr[-500:]}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
