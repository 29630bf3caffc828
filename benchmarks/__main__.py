"""Runs the benchmarks that end within minutes on two cores, then draws the charts and fills the result pages.

python -m benchmarks [NAME …]
"""

import argparse
import subprocess
import sys

SHORT = ("traffic", "aggregation", "audit", "chain", "training_step", "client_round")


def main() -> None:
    """Run the named benchmarks, or all short ones; stop at the first that fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="*", default=SHORT, help=f"a module of benchmarks; by default {', '.join(SHORT)}")
    for name in (*parser.parse_args().name, "charts", "page"):
        sys.stderr.write(f"python -m benchmarks.{name}\n")
        # Each in a process of its own: none measures the memory of another.
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)


if __name__ == "__main__":
    main()
