"""What a node spends on a round besides its steps, by the size of its base.

    python -m benchmarks.node_overhead [--rounds 5] [--seed 7]

A federation of one organisation in one process, on SmolLM2-135M and on a Llama of 300 million random weights, both in
NF4. Overhead is the node's CPU time between a task and its reply, from the second round on, less that of its optimiser
steps and of measuring its held-out records: what is parsed, checked, copied, hashed, signed and packed. The base is in
the process from the first round on, so what is left grows with the adapter and not with the base.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

from flwr.app import Context, Message
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

import llm.evaluate
from benchmarks import arguments, report
from benchmarks.timing import cpu_timed
from client_app.app import app
from console.backends.inline import run_inline
from core.config import RunConfig
from core.messages.training import TRAIN
from core.storage.state_folder import State
from llm.bases import SMOLLM2, find
from llm.model import unload
from llm.train import Loop
from server_app.app import app as server

TARGET = 1.2
"""Largest overhead with 300 million weights, relative to that with SmolLM2-135M."""
MILLION_300 = {
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 20,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "vocab_size": 49_152,
    "tie_word_embeddings": True,
}


class Timed:
    """The ClientApp, and by round the CPU seconds of its answers to a task without those of steps and measuring."""

    def __init__(self) -> None:
        self.overhead: list[float] = []
        self._apart = 0.0

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer as the ClientApp does."""
        self._apart = 0.0
        reply, seconds = cpu_timed(lambda: app(message, context))
        if message.metadata.message_type == TRAIN:
            self.overhead.append(seconds - self._apart)
        return reply

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Take optimiser steps and measuring out, while the block runs."""

        def clocked(real: Any) -> Any:
            def call(*given: Any, **named: Any) -> Any:
                found, seconds = cpu_timed(lambda: real(*given, **named))
                self._apart += seconds
                return found

            return call

        steps = patch.object(Loop, "step", clocked(Loop.step))
        measuring = patch.object(llm.evaluate, "record_losses", clocked(llm.evaluate.record_losses))
        with steps, measuring:
            yield


def measure(base: str, rounds: int, seed: int) -> dict[str, Any]:
    """Run a federation; the node's overhead in every round, and the median from the second on, in CPU seconds."""
    timed = Timed()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        data.mkdir()
        lines = [json.dumps({"question": f"{n}?", "answer": str(n * n)}) + "\n" for n in range(12)]
        (data / "one.jsonl").write_text("".join(lines))
        (data / "validation.jsonl").write_text("".join(lines[:2]))
        config = RunConfig(
            run="timed", state=str(Path(folder) / "state"), data=str(data), base=base, rounds=rounds, local_steps=1,
            batch_size=1, max_length=64, evaluate_limit=2, seed=seed, participation="all",
        )  # fmt: skip
        with timed.apart():
            run_inline(server, timed, 1, config.to_flat())  # type: ignore[arg-type] # it answers as a ClientApp does
        run = State.of(config).existing("timed")
        (head,) = (signed.value for signed in run.records() if signed.value.round == rounds)
        parameters = sum(array.size for array in run.artifacts.open(head.aggregate).arrays.values())
    unload()
    return {
        "overhead_seconds": median(timed.overhead[1:]),
        "rounds_seconds": [{"round": n, "overhead": seconds} for n, seconds in enumerate(timed.overhead, 1)],
        "adapter_parameters": parameters,
    }


@contextmanager
def random_base(like: Path) -> Iterator[Path]:
    """A folder with a Llama of 300 million random weights and the tokenizer of `like`."""
    with tempfile.TemporaryDirectory() as name:
        AutoModelForCausalLM.from_config(LlamaConfig(**MILLION_300)).half().save_pretrained(name)
        AutoTokenizer.from_pretrained(like).save_pretrained(name)
        yield Path(name)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=arguments.count(), default=5)
    parser.add_argument("--seed", type=arguments.count(0), default=7)
    options = parser.parse_args()
    figures = {"SmolLM2-135M": measure(SMOLLM2, options.rounds, options.seed)}
    with random_base(find(SMOLLM2)) as folder:
        figures["300 million random weights"] = measure(str(folder), options.rounds, options.seed)
    small, large = (found["overhead_seconds"] for found in figures.values())
    command = f"python -m benchmarks.node_overhead --rounds {options.rounds}"
    report.write("node_overhead", {"target_ratio": TARGET, "ratio": large / small, **figures}, command, options.seed)
    rows = [(base, found["overhead_seconds"], found["adapter_parameters"]) for base, found in figures.items()]
    report.print_table(("base", "overhead, CPU s", "adapter's parameters"), rows)
    print(f"Target: overhead ≤ {TARGET}× that with SmolLM2-135M. Measured: {large / small:.3f}×.")


if __name__ == "__main__":
    main()
