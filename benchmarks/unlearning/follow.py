"""Goes on with the adapters that were kept: relearning, further rounds of the others, and coarser base precisions.

    python -m benchmarks.unlearning.follow --data DATA --base BASE --work WORK later|precision TASK …

`later` trains every method's adapter on the erased records again, and from the same adapter goes on for more rounds of
the remaining organisations. `precision` looks at the models before and after retraining and at two methods, one exact
sum and one approximate, on a base in bf16 (the adapter, too), int8 and NF4. Writes WORK/later and WORK/precision for
tables.py, one file for each adapter; existing files are left alone.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import arguments
from benchmarks.in_process import RULE, fresh_adapter, train_to_end
from benchmarks.unlearning.measure import METHODS, SEEDS, base_of, kept, look, model_of, task_of
from benchmarks.unlearning.tasks import TASKS, ErasureTask
from core import lora
from core.adapter import AdapterState
from core.storage import blobs
from llm.evaluate import evaluate
from llm.model import Model, Quantisation, unload
from llm.train import TrainConfig, train

PRECISIONS = ("fp32", "bf16", "int8", "nf4")
_QUANTISED: Mapping[str, Quantisation] = {"fp32": "none", "int8": "int8", "nf4": "nf4"}
ROUNDED = ("untouched", "retrained", "remove", "npo")
RELEARNT = (10, 50, 100)
_RESURFACING = 5


def main() -> None:
    """Read the command line and measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=arguments.folder, required=True, help="folder with unlearning and sentiment")
    parser.add_argument("--base", type=arguments.folder, required=True, help="folder of the base model")
    parser.add_argument(
        "--work", type=arguments.folder, required=True, help="folder that `python -m benchmarks.unlearning` filled"
    )
    parser.add_argument("what", choices=("later", "precision"))
    parser.add_argument("task", nargs="+", choices=sorted(TASKS))
    options = parser.parse_args()
    for file, row in _later(options) if options.what == "later" else _precision(options):
        blobs.write(file, json.dumps(row).encode())
        sys.stderr.write(f"{file.stem}\n")


def relearnt(model: Model, adapter: AdapterState, task: ErasureTask, seed: int) -> dict[str, float]:
    """The loss on the erased records while they are trained on again, by the number of steps."""
    found, done = {}, 0
    for steps in RELEARNT:
        rate, total = task.schedule.learning_rate / 2, RELEARNT[-1]
        config = TrainConfig(steps - done, 2, task.schedule.max_length, rate, first_step=done, total_steps=total)
        adapter = train(model, task.members[task.erased].records, adapter, config, seed).adapter
        found[str(steps)], done = _loss(model, adapter, task), steps
    return found


def resurfaced(model: Model, adapter: AdapterState, task: ErasureTask, seed: int) -> float:
    """The loss on the erased records after more rounds of the remaining organisations."""
    schedule = replace(task.without, rounds=task.without.rounds[:1] * _RESURFACING, steps=task.schedule.steps // 4)
    state = train_to_end(model, task.members, schedule, seed, lora.factor(adapter, "B"))
    return _loss(model, RULE.adapter(state, fresh_adapter(model, seed)), task)


def base_in(base: str, precision: str) -> Model:
    """The base in a precision; for bf16 all weights of a model of its own are cast."""
    if precision == "bf16":
        return in_bfloat16(lambda: model_of(base))
    return model_of(base, _QUANTISED[precision])


def in_bfloat16(load: Callable[[], Model]) -> Model:
    """The model that is loaded, cast whole."""
    # The cast is in place: the cache must neither lend a model to it nor keep the result.
    unload()
    model = load()
    model.module.to(torch.bfloat16)
    unload()
    return model


def _later(options: argparse.Namespace) -> Iterator[tuple[Path, dict[str, Any]]]:
    for name in options.task:
        task, model = task_of(name, options.base, options.data)
        for seed in range(SEEDS):
            for method in METHODS:
                state = kept(options.work, name, seed, method)
                file = options.work / "later" / f"{state.stem}.json"
                if state.exists() and not file.exists():
                    adapter = AdapterState.from_bytes(state.read_bytes())
                    row = {"task": name, "seed": seed, "method": method, "loss": _loss(model, adapter, task)}
                    row["relearnt"] = relearnt(model, adapter, task, seed)
                    yield file, row | {"resurfaced": resurfaced(model, adapter, task, seed)}


def _precision(options: argparse.Namespace) -> Iterator[tuple[Path, dict[str, Any]]]:
    for precision in PRECISIONS:
        for name in options.task:
            model = base_in(base_of(name, options.base), precision)
            task = TASKS[name](model, options.data)
            for seed in range(SEEDS):
                for method in ROUNDED:
                    state = kept(options.work, name, seed, method)
                    file = options.work / "precision" / f"{state.stem}-{precision}.json"
                    if state.exists() and not file.exists():
                        found = look(model, AdapterState.from_bytes(state.read_bytes()), task)
                        yield file, {"task": name, "method": method, "precision": precision, "look": found}


def _loss(model: Model, adapter: AdapterState, task: ErasureTask) -> float:
    return evaluate(model, adapter, task.sets["forget"], task.schedule.max_length).loss


if __name__ == "__main__":
    main()
