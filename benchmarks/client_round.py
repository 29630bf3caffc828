"""One client round: this project against a loop that does the work of Flower's LLM template.

    python -m benchmarks.client_round [--base foedus-tiny] [--repeats 5] [--steps 10] [--large] [--seed 7]

Both rounds start from the same adapter, draw the same batches (others each time), take the same optimiser step on a
4-bit base, and end with the adapter as NumPy arrays. The template's round reads the tokenizer, rebuilds and quantises
the base from disk, wraps it with a fresh LoRA, sets the adapter and trains; ours finds the base in the process and
swaps the adapter in place. They take turns after one unmeasured round each. Overhead is a round's time less that of
its optimiser steps; ratios are medians over pairs. Times are CPU seconds of the process, in one thread, so that other
work on the machine hardly counts; waiting for the disk then counts for nothing. `--large` adds a Llama of 100 million
random weights.

The comparison favours the template: its Trainer (whose own set-up costs more) is replaced by our step, and it
tokenises only the records that it draws, where the template maps the whole data set.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from unittest.mock import patch

import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

import assets
from benchmarks import arguments, report
from benchmarks.timing import cpu_timed
from benchmarks.training_step import nf4
from core.adapter import AdapterState
from llm.batches import Batch
from llm.data import read_folder
from llm.determinism import reproducible
from llm.model import Model, ModelSpec, load
from llm.records import Record
from llm.train import Loop, TrainConfig, draw_steps, train

TARGET = 0.1
"""Largest overhead of ours, relative to the template's."""
_PEFT_NAME = "base_model.model.{}.weight"
MILLION_100 = {
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_key_value_heads": 12,
    "vocab_size": 20_000,
    "tie_word_embeddings": True,
}


@dataclass(frozen=True)
class Timing:
    """One round: all its seconds, and those of its optimiser steps."""

    total: float
    steps: float

    @property
    def overhead(self) -> float:
        """Seconds that are not training."""
        return self.total - self.steps


@dataclass(frozen=True)
class RoundTask:
    """Everything that a client needs for a round."""

    spec: ModelSpec
    folder: Path
    parent: AdapterState
    records: Sequence[Record]
    config: TrainConfig
    seed: int


def our_round(task: RoundTask) -> AdapterState:
    """Train as our ClientApp does."""
    return train(load(task.spec), task.records, task.parent, task.config, task.seed).adapter


def template_round(task: RoundTask) -> AdapterState:
    """Train as the template's ClientApp does: base, LoRA and adapter are built anew."""
    tokenizer = AutoTokenizer.from_pretrained(task.folder, use_fast=True)
    base = AutoModelForCausalLM.from_pretrained(
        task.folder, quantization_config=nf4(bfloat16=True), dtype=torch.float32
    )
    base = prepare_model_for_kbit_training(base, use_gradient_checkpointing=False)
    lora = LoraConfig(r=task.spec.rank, lora_alpha=task.spec.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    module = get_peft_model(base, lora)
    parent = {_PEFT_NAME.format(name): torch.tensor(array.copy()) for name, array in task.parent.arrays.items()}
    set_peft_model_state_dict(module, parent)
    with reproducible(torch.device("cpu"), task.seed):
        model = Model(task.spec, task.folder, tokenizer, module.train(), packs=True)
        loop = Loop(model, task.config)
        for step, batches in enumerate(draw_steps(model, task.records, task.config, task.seed)):
            loop.step(batches, task.config.rate(step))
    trained = get_peft_model_state_dict(module, save_embedding_layers=False)
    return AdapterState({name: trained[_PEFT_NAME.format(name)].numpy() for name in task.parent.arrays})


def compare(task: RoundTask, repeats: int) -> dict[str, float]:
    """Take turns `repeats` times; returns medians in seconds and the ratios of ours to the template's."""
    rounds: dict[str, Callable[[RoundTask], AdapterState]] = {"ours": our_round, "template": template_round}
    timings: dict[str, list[Timing]] = {name: [] for name in rounds}
    for repeat in range(repeats + 1):
        for name, play in rounds.items():
            timing = timed(play, replace(task, seed=task.seed + repeat))
            if repeat:  # the first round of each warms up
                timings[name].append(timing)
    pairs = list(zip(timings["ours"], timings["template"], strict=True))
    return {
        f"{name}_{part}_seconds": median(getattr(timing, part) for timing in found)
        for name, found in timings.items()
        for part in ("total", "steps", "overhead")
    } | {
        "overhead_ratio": median(ours.overhead / template.overhead for ours, template in pairs),
        "round_ratio": median(ours.total / template.total for ours, template in pairs),
    }


def timed(play: Callable[[RoundTask], AdapterState], task: RoundTask) -> Timing:
    """Time one round and the optimiser steps inside it."""
    steps = 0.0
    step = Loop.step

    def clocked(self: Loop, batches: Sequence[Batch], rate: float) -> None:
        nonlocal steps
        steps += cpu_timed(lambda: step(self, batches, rate))[1]

    with patch.object(Loop, "step", clocked):
        _, total = cpu_timed(lambda: play(task))
    return Timing(total, steps)


@contextmanager
def random_base(like: Path) -> Iterator[Path]:
    """A folder with a Llama of 100 million random weights and the tokenizer of `like`."""
    with tempfile.TemporaryDirectory() as name:
        AutoModelForCausalLM.from_config(LlamaConfig(**MILLION_100)).half().save_pretrained(name)
        AutoTokenizer.from_pretrained(like).save_pretrained(name)
        yield Path(name)


def make_task(base: str, records: Sequence[Record], config: TrainConfig, seed: int) -> RoundTask:
    """Load the base once, as any process does before its first round, and describe the round."""
    spec = ModelSpec(base, "nf4", device="cpu")
    model = load(spec)
    return RoundTask(spec, model.folder, model.get_adapter(), records, config, seed)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default=assets.BASE_MODEL)
    parser.add_argument("--repeats", type=arguments.count(), default=5)
    parser.add_argument(
        "--steps", type=arguments.count(), default=10, help="optimiser steps of a round; the template's default"
    )
    parser.add_argument("--large", action="store_true", help="also with 100 million random weights")
    parser.add_argument("--seed", type=arguments.count(0), default=7)
    options = parser.parse_args()
    records = read_folder(assets.samples()).organisations[0].train
    small = TrainConfig(options.steps, batch_size=8, max_length=256)
    task = make_task(options.base, records, small, options.seed)
    figures = {Path(options.base).name: compare(task, options.repeats)}
    if options.large:
        with random_base(task.folder) as folder:
            large = TrainConfig(options.steps, batch_size=1, max_length=256)
            task = make_task(str(folder), records, large, options.seed)
            figures["100 million random weights"] = compare(task, options.repeats)
    flags = f"--base {Path(options.base).name} --repeats {options.repeats} --steps {options.steps}"
    command = f"python -m benchmarks.client_round {flags}{' --large' if options.large else ''}"
    report.write("client_round", {"target_overhead_ratio": TARGET, "bases": figures}, command, options.seed)
    rows = [
        (base, whose, *(found[f"{whose}_{part}_seconds"] for part in ("total", "steps", "overhead")))
        for base, found in figures.items()
        for whose in ("ours", "template")
    ]
    report.print_table(("base", "loop", "round, CPU s", "steps", "overhead"), rows)
    for base, found in figures.items():
        print(f"{base}. Target: overhead ≤ {TARGET}× the template's. Measured: {found['overhead_ratio']:.3f}×.")


if __name__ == "__main__":
    main()
