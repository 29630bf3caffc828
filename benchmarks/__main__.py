"""All benchmarks that end within minutes on two cores, one after another, then the results page.

python -m benchmarks [NAME …]
"""

import subprocess
import sys

SHORT = ("traffic", "aggregation", "audit", "chain", "training_step", "client_round")


def main() -> None:
    """Run each in a process of its own, so that none measures another's memory; stop at the first that fails."""
    for name in (*(sys.argv[1:] or SHORT), "page"):
        sys.stderr.write(f"python -m benchmarks.{name}\n")
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)


if __name__ == "__main__":
    main()
