"""What a federation learns with the default settings, on the embedded samples and on a folder of real data.

Each run is the command line that a user would type, and is audited afterwards. Losses are nats per answer token on
held-out records of each organisation, with the bare base and with the federation's adapter.

    python -m benchmarks.federation [--data DIR] [--base FOLDER …]
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import arguments, report
from benchmarks.command_line import foedus

SEED = 7


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data",
        type=arguments.folder,
        help="a folder with one data set per organisation, to run on besides the samples",
    )
    parser.add_argument("--base", action="append", default=[], help="a base model to run on the folder as well")
    options = parser.parse_args()
    runs: dict[str, list[str]] = {"foedus-tiny on the samples": ["--base", "foedus-tiny"]}
    if options.data:
        for base in ("foedus-tiny", *options.base):
            runs[f"{Path(base).name} on {options.data.name}"] = ["--data", str(options.data), "--base", base]
    figures = {name: measure(words) for name, words in runs.items()}
    report.write("federation", figures, "python -m benchmarks.federation", SEED)
    for name, values in figures.items():
        losses = [
            (o, *(values[f][o] for f in ("base_loss", "final_loss", "change_percent"))) for o in values["base_loss"]
        ]
        report.print_table(("organisation", "base loss", "final loss", "change, %"), losses, name)


def measure(options: Sequence[str]) -> dict[str, Any]:
    """Run a federation of three rounds and audit it: losses and their change in percent, per organisation."""
    with tempfile.TemporaryDirectory() as state:
        settings = ("target-blocks=all", "server-rate=1", "batch-size=4", "participation=all")
        shape = (f"--set={setting}" for setting in settings)
        run = foedus("run", "--rounds", "3", "--seed", str(SEED), "--state", state, *shape, *options)
        audit = foedus("verify", "--state", state)
        # The chain's daemon outlives the command that started it.
        foedus("chain", "stop", "--state", state)
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


if __name__ == "__main__":
    main()
