"""The attribution experiments on a base that speaks: fewer rounds, the product's settings, fewer responses.

    python -m benchmarks.provenance.speaking --data DATA --work WORK [--seeds N] [--only NAME …]

DATA holds the four domains of real data, and TOFU in the folder unlearning; WORK keeps all scores. What was judged of a
federation lies in benchmarks/measured, and is not measured again: the tables have all that lies there. The responses
and their teachers are those of `benchmarks.provenance`; where an organisation misses the later rounds there, it does so
here.
"""

import argparse
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from assets import samples
from benchmarks import arguments, report
from benchmarks.in_process import Schedule
from benchmarks.provenance.experiments import Experiment, ExperimentSettings, Probe
from benchmarks.provenance.measure import BY_PASSES, FAST, run
from benchmarks.provenance.served import asked
from benchmarks.provenance.tables import by_experiment, correlations, judged, tokens_of_facts
from benchmarks.speaking import SEEDS, trained
from core.config import RunConfig
from llm.sources import base_of_settings

SERVED = "served"
"""A run of `foedus run` as it comes, which is asked about the held-out and the validation records of the samples."""
RUN = ("natural", "triggers", "facts", SERVED, "absent", "same", "unequal", "authors")
STEPS = 16
"""Of an organisation in each round."""
ASKED = 6
"""Responses of each teacher and kind."""


def shortened(experiment: Experiment) -> Experiment:
    """Every second round, with the product's settings, and after the last the first responses of each teacher."""
    rounds = experiment.schedule.rounds[1::2]
    (probes,), counted, kept = experiment.probes.values(), Counter[tuple[object, str]](), list[Probe]()
    for probe in probes:
        counted[probe.right, probe.kind] += 1
        if counted[probe.right, probe.kind] <= ASKED:
            kept.append(probe)
    schedule = Schedule.by_default(rounds, STEPS)
    return replace(experiment, schedule=schedule, probes={len(rounds) - 1: tuple(kept)})


def measured(name: str, data: Path, seed: int, work: Path) -> dict[str, Any]:
    """What was judged of the responses of one federation."""
    if name == SERVED:
        return served(seed, (work / f"{SERVED}-{seed}").absolute())
    settings = ExperimentSettings(base_of_settings(RunConfig()), data, "", seed)
    return judged(torch.load(run(name, RunConfig().base, settings, work, shaped=shortened), weights_only=False))


def served(seed: int, folder: Path) -> dict[str, Any]:
    """The same of a default run in a folder, made once."""
    rows = asked(trained(folder, "--seed", str(seed))[0], samples(), ASKED, (*FAST, *BY_PASSES))
    return judged({"experiment": SERVED, "base": RunConfig().base, "domain": "", "seed": seed, "rows": rows})


def figures() -> dict[str, Any]:
    """The tables of every federation that was measured, whenever that was."""
    found = (report.known("provenance", f"{name}-{seed}") for seed in SEEDS for name in RUN)
    runs = [run for run in found if run is not None]
    return {
        "by_experiment": by_experiment(runs),
        "tokens_of_facts": tokens_of_facts(runs),
        "correlations": correlations(runs),
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=arguments.folder, required=True, help="folder with DOMAIN/train.jsonl and DOMAIN/dev.jsonl"
    )
    parser.add_argument("--work", type=arguments.output, required=True, help="folder for the scores")
    parser.add_argument("--seeds", type=arguments.count(most=len(SEEDS)), default=3)
    parser.add_argument("--only", nargs="+", default=RUN, choices=RUN, help="the experiments to run")
    options = parser.parse_args()
    for seed in SEEDS[: options.seeds]:
        for name in options.only:
            report.kept("provenance", f"{name}-{seed}", partial(measured, name, options.data, seed, options.work))
            # After every federation: a measurement that stops leaves its figures behind.
            command = "python -m benchmarks.provenance.speaking --data DATA --work WORK"
            report.write("provenance_speaking", figures(), command, SEEDS[0], kept_as="provenance")


if __name__ == "__main__":
    main()
