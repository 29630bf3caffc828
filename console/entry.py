"""The console script: it turns what goes wrong into one line and an exit code."""

import os
import sys


def main() -> None:
    """Run the command line; a missing requirement is told in one line."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # several processes train at once; more threads slow all of them
    try:
        from console.cli import run_command  # noqa: PLC0415 - what it imports may not be installed
    except ModuleNotFoundError as error:
        sys.exit(_fail(f"module {error.name!r} is not installed: `make setup`, or pip install -r requirements.txt"))
    sys.exit(run_command())


def _fail(message: str) -> int:
    sys.stderr.write(f"covenant: {message}\n")
    return 2
