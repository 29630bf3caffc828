"""What a federation learns with the default settings, on the embedded samples and on a folder of real data.

Each run is the command line that a user would type; its audit runs afterwards. Losses are nats per answer token on
held-out records of each organisation, with the bare base and with the federation's adapter.

    python -m benchmarks.federation [--data DIR] [--base FOLDER …]
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import report

_SEED = 7
_FOEDUS = [sys.executable, str(Path(sys.executable).parent / "foedus")]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="a folder with one data set per organisation, to run on besides the samples")
    parser.add_argument("--base", action="append", default=[], help="a base model to run on the folder as well")
    options = parser.parse_args()
    worlds: dict[str, list[str]] = {"foedus-tiny on the samples": []}
    if options.data:
        for base in ("foedus-tiny", *options.base):
            worlds[f"{Path(base).name} on {Path(options.data).name}"] = ["--data", options.data, "--base", base]
    figures = {name: measure(arguments) for name, arguments in worlds.items()}
    report.write("federation", figures, "python -m benchmarks.federation", _SEED)
    for name, values in figures.items():
        sys.stdout.write(f"{name}\n{report.table(('figure', 'value'), _lines(values))}\n\n")


def measure(arguments: Sequence[str]) -> dict[str, Any]:
    """Run a federation of three rounds and audit it: losses and their change in percent, per organisation."""
    with tempfile.TemporaryDirectory() as state:
        run = _foedus("run", "--rounds", "3", "--seed", str(_SEED), "--state", state, *arguments)
        audit = _foedus("verify", "--state", state)
        _foedus("chain", "stop", "--state", state)
    base, final = run["base_loss"], run["final_loss"]
    change = {name: 100 * (final[name] / base[name] - 1) for name in base}
    return {
        "base_loss": base,
        "final_loss": final,
        "change_percent": change,
        "mean_change_percent": sum(change.values()) / len(change),
        "seconds": run["seconds"],
        "audit_ok": audit["ok"],
    }


def _foedus(*arguments: str) -> dict[str, Any]:
    done = subprocess.run([*_FOEDUS, *arguments, "--json"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"foedus {' '.join(arguments)} exited {done.returncode}: {done.stderr[-500:]}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _lines(values: dict[str, Any]) -> list[tuple[str, Any]]:
    flat = [(name, value) for name, value in values.items() if not isinstance(value, dict)]
    nested = [(f"{name} {k}", v) for name, value in values.items() if isinstance(value, dict) for k, v in value.items()]
    return nested + flat


if __name__ == "__main__":
    main()
