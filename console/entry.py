"""The console script: a requirement that is missing becomes one line and an exit code."""

import os
import sys


def main() -> None:
    """Run the command line and exit with its code."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # several processes train at once; more threads slow all of them
    # What listens on this machine's loopback is never behind a proxy, whatever the network's settings leave out.
    direct = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(filter(None, (direct, "127.0.0.1", "localhost")))
    try:
        from console.cli import run_command  # noqa: PLC0415 - what it imports may not be installed

        code = run_command()
    except ModuleNotFoundError as error:
        remedy = "run `make setup`, or pip install -r requirements.txt"
        sys.stderr.write(f"foedus: expected the module {error.name!r}, got no such module: {remedy}\n")
        code = 2
    sys.exit(code)
