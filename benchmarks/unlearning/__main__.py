"""Run the tasks: all of them for the first seed, then the retrained models of the last, then the other seeds.

    python -m benchmarks.unlearning --data DATA --base BASE --work WORK [TASK …]

DATA holds the folders unlearning (TOFU) and sentiment, BASE a small model in Hugging Face format; WORK keeps what was
measured, and a run that is repeated goes on where it stopped. `python -m benchmarks.unlearning.tables --work WORK`
writes the results.
"""

import argparse
import sys
import time
from pathlib import Path

from benchmarks.unlearning.measure import REFERENCES, SEEDS, run, task_of
from benchmarks.unlearning.tasks import TASKS


def main() -> None:
    """Read the command line and measure what is wanted, seed by seed: soon there is something to compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with unlearning and sentiment")
    parser.add_argument("--base", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--work", type=Path, required=True, help="folder for what was measured")
    parser.add_argument("task", nargs="*", help=f"some of: {'; '.join(TASKS)}")
    options = parser.parse_args()
    tasks = {name: task_of(name, options.base, options.data) for name in options.task or TASKS}
    for seed in (0, *range(SEEDS, REFERENCES), *range(1, SEEDS)):
        for name, (task, model) in tasks.items():
            started = time.perf_counter()
            file = run(name, task, model, seed, options.work)
            sys.stderr.write(f"{time.strftime('%X')} {file.stem} {time.perf_counter() - started:.0f} s\n")


if __name__ == "__main__":
    main()
