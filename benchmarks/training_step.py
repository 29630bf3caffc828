"""Our optimiser step against a bare loop of transformers, PEFT and bitsandbytes, and the gain from packing.

    python -m benchmarks.training_step [--base foedus-tiny] [--data DIR] [--pairs 15] [--seed 7]

Both steps train B of the same adapter on the same packed batches, each on a base of its own, and take turns at going
first; the overhead is the median ratio of a pair, less one. Times are CPU seconds of the process, in one thread, so
that other work on the machine hardly counts. The bare step is written by hand: forward with labels, backward, clip,
AdamW, zero. Before anything is timed both must compute the same loss. Packing is measured with our step alone: the
same examples in each step, packed into rows, or one to a row and padded to the longest.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

import assets
from benchmarks import arguments, report
from benchmarks.timing import cpu_timed
from llm.batches import IGNORED, Batch, collate, encode, pack
from llm.data import read_folder
from llm.determinism import reproducible
from llm.model import Model, ModelSpec, load
from llm.records import Record
from llm.train import Loop, TrainConfig, draw_steps

TARGET = 0.05
"""Largest overhead of our step over the bare one."""
MAX_DISAGREEMENT = 0.01
"""Largest relative difference of the two losses on the first batch; bfloat16 rounds them differently."""


@dataclass
class BareLoop:
    """A quantised model, its LoRA and its optimiser, without this project."""

    module: torch.nn.Module
    optimizer: torch.optim.Optimizer
    bfloat16: bool

    @classmethod
    def load(cls, spec: ModelSpec, folder: Path) -> "BareLoop":
        """Read the base from disk and wrap it; A stays as it was drawn."""
        bfloat16 = bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
        base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, quantization_config=nf4(bfloat16))
        lora = LoraConfig(r=spec.rank, lora_alpha=spec.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
        module = get_peft_model(base, lora).train()
        for name, parameter in module.named_parameters():
            parameter.requires_grad_("lora_B" in name)
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        return cls(module, torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.0, fused=True), bfloat16)

    def step(self, batch: Batch) -> float:
        """One optimiser step; returns the loss before it."""
        with torch.autocast(batch.tokens.device.type, dtype=torch.bfloat16, enabled=self.bfloat16):
            labels = torch.full_like(batch.tokens, IGNORED)
            labels[:, 1:] = batch.targets[:, :-1]
            # With a cache, transformers would not see the packing and let examples attend to each other.
            loss = self.module(
                input_ids=batch.tokens, position_ids=batch.positions, labels=labels, use_cache=False
            ).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss.item())


def nf4(bfloat16: bool) -> BitsAndBytesConfig:
    """The quantisation of `llm.model`, written out."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if bfloat16 else torch.float32,
    )


def overhead(model: Model, bare: BareLoop, batches: Sequence[Batch], config: TrainConfig) -> dict[str, float]:
    """Median seconds of both steps taking turns on `batches`, and the overhead; ends the process if losses disagree."""
    loop = Loop(model, config)
    # The first batch compares the losses; it also warms both loops up, and is not timed.
    loop.step([batches[0]], 1e-3)
    disagreement = abs(loop.nats / loop.answers / bare.step(batches[0]) - 1)
    if disagreement > MAX_DISAGREEMENT:
        raise SystemExit(f"expected losses within {MAX_DISAGREEMENT:.0%} of each other, got {disagreement:.1%}")
    pairs = []
    for index, batch in enumerate(batches[1:]):
        steps: dict[str, Callable[[], object]] = {
            "ours": partial(loop.step, [batch], 1e-3),
            "bare": partial(bare.step, batch),
        }
        order = sorted(steps, reverse=bool(index % 2))
        pairs.append({name: cpu_timed(steps[name])[1] for name in order})
    return {
        "ours_seconds": median(pair["ours"] for pair in pairs),
        "bare_seconds": median(pair["bare"] for pair in pairs),
        "overhead": median(pair["ours"] / pair["bare"] for pair in pairs) - 1,
        "first_loss_disagreement": disagreement,
    }


def packing(model: Model, records: Sequence[Record], config: TrainConfig, steps: int) -> dict[str, float]:
    """Tokens a second (padding not counted) of our step on the same examples packed, and padded one to a row."""
    examples = [encode(model.tokenizer, record, config.max_length) for record in records]
    rows = pack(examples, config.max_length)
    groups = [rows[i : i + config.batch_size] for i in range(0, len(rows), config.batch_size)][:steps]
    loop = Loop(model, config)
    tokens, packed, padded = 0, 0.0, 0.0
    for group in groups:
        batch, alone = collate(examples, group), collate(examples, [(index,) for row in group for index in row])
        tokens += int((batch.owners >= 0).sum())  # padding has no owner
        packed += cpu_timed(partial(loop.step, [batch], 1e-3))[1]
        padded += cpu_timed(partial(loop.step, [alone], 1e-3))[1]
    return {
        "packed": tokens / packed,
        "padded": tokens / padded,
        "gain": padded / packed,
        "examples_per_row": sum(len(row) for group in groups for row in group) / sum(len(group) for group in groups),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default=assets.BASE_MODEL)
    parser.add_argument(
        "--data", type=arguments.folder, default=None, help="a folder of organisations; the embedded samples"
    )
    parser.add_argument("--pairs", type=arguments.count(), default=15, help="steps of each loop")
    parser.add_argument("--packing-steps", type=arguments.count(), default=2)
    parser.add_argument("--seed", type=arguments.count(0), default=7)
    options = parser.parse_args()
    spec = ModelSpec(options.base, "nf4", device="cpu")
    organisations = read_folder(options.data or assets.samples()).organisations
    config = TrainConfig(steps=options.pairs + 1, batch_size=8, max_length=256)
    model = load(spec)
    with reproducible(model.device, options.seed):
        model.module.train()
        records = [record for organisation in organisations for record in organisation.train]
        batches = [batch for step in draw_steps(model, records, config, options.seed) for batch in step]
        step = overhead(model, BareLoop.load(spec, model.folder), batches, config)
        speeds = {o.name: packing(model, o.train, config, options.packing_steps) for o in organisations}
    command = f"python -m benchmarks.training_step --base {Path(options.base).name} --pairs {options.pairs}"
    figures = {"step": step, "target_overhead": TARGET, "tokens_per_cpu_second": speeds}
    report.write("training_step", figures, command, options.seed)
    report.print_table(("step", "CPU seconds"), [("ours", step["ours_seconds"]), ("bare", step["bare_seconds"])])
    print(f"Target: overhead ≤ {TARGET:.0%}. Measured: {step['overhead']:+.1%}.")
    header = ("tokens a CPU second", "packed", "padded", "gain")
    report.print_table(header, [(name, s["packed"], s["padded"], s["gain"]) for name, s in speeds.items()])


if __name__ == "__main__":
    main()
