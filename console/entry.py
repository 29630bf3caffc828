"""The console script: it turns what goes wrong into one line and an exit code."""

import os
import sys


def main() -> None:
    """Run the command line; a missing requirement is told in one line."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # several processes train at once; more threads slow all of them
    sys.exit(_run())


def _run() -> int:
    try:
        from console.cli import run_command  # noqa: PLC0415 - what it imports may not be installed

        return run_command()
    except ModuleNotFoundError as error:
        wanted = "`make setup`, or pip install -r requirements.txt"
        sys.stderr.write(f"foedus: module {error.name!r} is not installed: {wanted}\n")
        return 2
