"""Time to remove an organisation on the embedded base model, with lanes of one and with one lane for all.

A real run of the command line, then a real erasure by `remove`. `command_seconds` is the whole of `foedus forget`: a
full audit, signatures, chain, destruction, and evaluation before and after. `exclusion_seconds` is `remove` itself: the
sums of the same layout again without the organisation, or the average of the lanes, from states in memory. Four
held-out records an organisation are evaluated. `retraining_seconds` is the training of the remaining organisations, as
many rounds and steps, one after another, and nothing else.

    python -m benchmarks.unlearning.speed [--rounds 3] [--steps 10]
"""

import argparse
import json
import tempfile
from typing import Any

import numpy as np

from assets import samples
from benchmarks import arguments, report
from benchmarks.command_line import foedus
from benchmarks.in_process import RULE, address, fresh_adapter
from benchmarks.timing import wall_timed
from core.adapter import AdapterState
from core.aggregation import WeightedUpdate
from core.config import RunConfig
from llm.files import read_records
from llm.sources import base_of_settings
from llm.train import TrainConfig, train

SEED = 7
ORGANISATIONS = ("coding", "financial", "mathematical", "medical")
ERASED = "medical"
TARGET_SECONDS, TARGET_RATIO = 1.0, 0.01


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=arguments.count(), default=3)
    parser.add_argument("--steps", type=arguments.count(), default=10)
    options = parser.parse_args()
    figures: dict[str, Any] = {
        "target_exclusion_seconds": TARGET_SECONDS,
        "target_ratio_at_lane_size_1": TARGET_RATIO,
    }
    for size in (1, 0):
        figures[f"lane size {size}"] = measure(size, options.rounds, options.steps)
    command = f"python -m benchmarks.unlearning.speed --rounds {options.rounds} --steps {options.steps}"
    report.write("unlearning_speed", figures, command, SEED)
    print(json.dumps(figures, indent=1))


def measure(lane_size: int, rounds: int, steps: int) -> dict[str, Any]:
    """Run, erase, and time the sums alone."""
    # The erasure is measured, not the run before it.
    shorter: dict[str, int | float | str] = {"local-steps": steps, "local-epochs": 0.0, "evaluate-limit": 4}
    shorter |= {"participation": "all", "private-chain": "none"}
    settings = [word for key, value in shorter.items() for word in ("--set", f"{key}={value}")]
    with tempfile.TemporaryDirectory() as state:
        where = ("--state", state, "--backend", "inline")
        shape = ("--rounds", str(rounds), "--lane-size", str(lane_size), "--seed", str(SEED))
        foedus("run", *where, *shape, *settings)
        forgotten = foedus("forget", "--organisation", ERASED, "--method", "remove", *where)
        foedus("chain", "stop", "--state", state)
    excluding = excluded(rounds) if lane_size == 0 else recomposed()
    retraining = rounds * (len(ORGANISATIONS) - 1) * trained(steps)
    return {
        "rounds": rounds,
        "steps_a_round": steps,
        "training_steps_of_remove": 0,
        "label": forgotten["label"],
        "exclusion_seconds": excluding,
        "exclusion_over_retraining": excluding / retraining,
        "retraining_seconds": retraining,
        "command_seconds": forgotten["seconds"],
    }


def excluded(rounds: int) -> float:
    """Seconds that a shared lane's sums take without one of its members."""
    initial, updates = _states(len(ORGANISATIONS))
    remaining = [WeightedUpdate(address(k), 1 / 3, update) for k, update in enumerate(updates[:-1])]

    def summed() -> AdapterState:
        state = initial
        for _ in range(rounds):
            state = RULE.aggregate(state, remaining).state
        return state

    return wall_timed(summed)[1]


def recomposed() -> float:
    """Seconds that the average of isolated lanes takes without one of them."""
    _, lanes = _states(len(ORGANISATIONS))
    return wall_timed(lambda: RULE.compose([(1 / 3, lane) for lane in lanes[:-1]]))[1]


def trained(steps: int) -> float:
    """Seconds of an organisation's training in a round of the default settings, but for the steps."""
    config = RunConfig(base="foedus-tiny", target_blocks="all")
    model = base_of_settings(config)
    records = read_records(samples() / ERASED / "train.jsonl")
    plan = TrainConfig(steps, config.batch_size, config.max_length, config.learning_rate)
    return train(model, records, fresh_adapter(model, SEED), plan, SEED).seconds


def _states(count: int) -> tuple[AdapterState, list[AdapterState]]:
    """A state of the embedded base's default adapter, and random ones like it."""
    config = RunConfig(base="foedus-tiny", target_blocks="all")
    model = base_of_settings(config)
    state = RULE.initial(fresh_adapter(model, SEED))
    rng = np.random.default_rng(SEED)
    return state, [
        AdapterState({name: rng.standard_normal(array.shape, np.float32) for name, array in state.arrays.items()})
        for _ in range(count)
    ]


if __name__ == "__main__":
    main()
