"""Runs the unlearning tasks: all of them for the first seed, then the retrained models of the last, then other seeds.

    python -m benchmarks.unlearning --data DATA --base BASE --work WORK [TASK …]

DATA holds the folders unlearning (TOFU) and sentiment, BASE a small model in Hugging Face format; WORK keeps the
measurements, and a command that is repeated goes on where it stopped. `python -m benchmarks.unlearning.tables --work
WORK` writes the results.
"""

import argparse
import sys
import time
from functools import partial

from benchmarks import arguments
from benchmarks.timing import wall_timed
from benchmarks.unlearning.measure import REFERENCES, SEEDS, run, task_of
from benchmarks.unlearning.tasks import TASKS


def main() -> None:
    """Read the command line and measure the tasks, seed by seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=arguments.folder, required=True, help="folder with unlearning and sentiment")
    parser.add_argument("--base", type=arguments.folder, required=True, help="folder of the base model")
    parser.add_argument("--work", type=arguments.output, required=True, help="folder for the measurements")
    parser.add_argument("task", nargs="*", help=f"some of: {'; '.join(TASKS)}")
    options = parser.parse_args()
    if unknown := sorted(set(options.task) - TASKS.keys()):
        parser.error(f"argument task: expected some of {'; '.join(TASKS)}, got {unknown[0]}")
    tasks = {name: task_of(name, options.base, options.data) for name in options.task or TASKS}
    # In this order there is soon something to compare: one seed of every method, and several references.
    for seed in (0, *range(SEEDS, REFERENCES), *range(1, SEEDS)):
        for name, (task, model) in tasks.items():
            file, seconds = wall_timed(partial(run, name, task, model, seed, options.work))
            sys.stderr.write(f"{time.strftime('%X')} {file.stem} {seconds:.0f} s\n")


if __name__ == "__main__":
    main()
