"""Looks again at states that were kept, in other precisions, for rounding may bring back what was forgotten.

    python -m benchmarks.unlearning.ladder --data DATA --base BASE --work WORK [TASK …]

For two methods, one exact in the end and one approximate, and the models before and retrained; adapters stay in float32
but for bf16, where they are rounded, too. Writes WORK/precision/*.json for tables.py.
"""

import argparse
import json
import sys
from pathlib import Path

import torch

from benchmarks.unlearning.measure import FOLLOWED, kept, look, model_of, save
from benchmarks.unlearning.tasks import TASKS
from core.adapter import AdapterState
from llm.model import Model

PRECISIONS = ("fp32", "bf16", "int8", "nf4")
METHODS = ("untouched", "retrained", "remove", "npo")


def main() -> None:
    """Read the command line; one precision after another, for each loads the base anew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with unlearning and sentiment")
    parser.add_argument("--base", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--work", type=Path, required=True, help="folder that `python -m benchmarks.unlearning` filled")
    parser.add_argument("task", nargs="+", choices=TASKS)
    options = parser.parse_args()
    for precision in PRECISIONS:
        model = base_in(options.base, precision)
        for name in options.task:
            task = TASKS[name](model, options.data)
            for seed in range(FOLLOWED):
                for method in METHODS:
                    state = kept(options.work, name, seed, method)
                    if state.exists():
                        found = look(model, AdapterState.from_bytes(state.read_bytes()), task)
                        row = {"task": name, "seed": seed, "method": method, "precision": precision, "look": found}
                        save(json.dumps(row).encode(), options.work / "precision" / f"{state.stem}-{precision}.json")
            sys.stderr.write(f"{name} in {precision}\n")


def base_in(base: Path, precision: str) -> Model:
    """The base in a precision; for bf16 all of its weights are cast."""
    model = model_of(base, precision if precision in {"int8", "nf4"} else "none")
    if precision == "bf16":
        model.module.to(torch.bfloat16)
    return model


if __name__ == "__main__":
    main()
