"""Runs the attribution experiments.

    python -m benchmarks.provenance --data DATA --bases BASES --work WORK [--seeds 5] EXPERIMENT …

BASES holds one folder for each base, as `python -m benchmarks.train_base` writes it; WORK keeps the scores, and a
command that is repeated goes on where it stopped. `python -m benchmarks.provenance.tables --work WORK` writes the
results.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial

from benchmarks import arguments
from benchmarks.provenance.experiments import DOMAINS, EXPERIMENTS, ExperimentSettings
from benchmarks.provenance.measure import model_of, run
from benchmarks.timing import wall_timed


def main() -> None:
    """Read the command line and run the experiments, seed by seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=arguments.folder, required=True, help="folder with DOMAIN/train.jsonl and DOMAIN/dev.jsonl"
    )
    parser.add_argument("--bases", type=arguments.folder, required=True, help="folder with the base models")
    parser.add_argument("--work", type=arguments.output, required=True, help="folder for the scores")
    parser.add_argument("--base", action="append", required=True, help="a base of BASES; may be repeated")
    parser.add_argument("--domain", action="append", choices=DOMAINS, help="for paper and many; may be repeated")
    parser.add_argument("--seeds", type=arguments.count(), default=5)
    parser.add_argument("--first-seed", type=arguments.count(0), default=0)
    parser.add_argument("experiment", nargs="+", choices=sorted(EXPERIMENTS))
    options = parser.parse_args()
    if missing := [base for base in options.base if not (options.bases / base).is_dir()]:
        parser.error(f"argument --base: expected a folder in {options.bases}, got {missing[0]}")
    for base, experiment, domain, seed in _cells(
        options, range(options.first_seed, options.first_seed + options.seeds)
    ):
        # Loading is cached: it happens once for each base.
        settings = ExperimentSettings(model_of(options.bases / base), options.data, domain, seed)
        file, seconds = wall_timed(partial(run, experiment, base, settings, options.work))
        sys.stderr.write(f"{time.strftime('%X')} {file.stem} {seconds:.0f} s\n")


def _cells(options: argparse.Namespace, seeds: Sequence[int]) -> Iterator[tuple[str, str, str, int]]:
    """Every base, experiment, domain and seed, the seeds outermost but for the base, which is loaded once."""
    for base in options.base:
        for seed in seeds:
            for experiment in options.experiment:
                for domain in options.domain or DOMAINS if experiment in {"paper", "many"} else ("",):
                    yield base, experiment, domain, seed


if __name__ == "__main__":
    main()
