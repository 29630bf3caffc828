"""Bases of up to eight billion weights: training against bare PEFT, a client's round, attribution, an exact removal.

    python -m benchmarks.gpu [--device cuda] [--seconds 400] [--shapes NAME ...]

Weights are random, in the shapes of published models, in NF4; then in bfloat16 (on a CPU float32), as far as the
seconds go. Both sides train on the same packed rows of random tokens, half of each example an answer; as many rows a
step as the memory holds, up to 16, and gradient checkpointing only where one row would not fit without. The bare loop
is what PEFT documents: an adapter on all linear layers, A and B trained, labels given to the model; `same layers`
restricts it to the layers that ours trains. Both have one optimiser, the paged one of bitsandbytes where it is there. A
client's round is adapter in, ten steps, adapter out. A part that cannot be measured says why.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model

from benchmarks import arguments, report
from benchmarks.in_process import RULE, fresh_adapter
from benchmarks.provenance.speed import ANSWER, PROMPT, make_example, random_subject
from benchmarks.random_bases import SHAPES, Shape, random_model
from benchmarks.timing import T, wall_timed
from benchmarks.training_step import BareLoop
from core.adapter import AdapterState
from core.aggregation import WeightedUpdate
from llm.batches import Batch, Example, collate
from llm.determinism import reproducible
from llm.evaluate import generate
from llm.model import Model, Quantisation
from llm.train import Loop, TrainConfig, adamw, training_mode
from provenance.attribution import METHODS, attribute
from provenance.method import Effort, Subject

WARM, STEPS, ROUND_STEPS = 2, 5, 10
ORGANISATIONS = 6
RATE = 1e-3
SEED = 7
_EXAMPLES_A_ROW = 4


@dataclass(frozen=True)
class Bench:
    """A shape on a device, and the rows that both sides train on."""

    shape: Shape
    device: torch.device
    rows: int
    """Rows a step."""
    checkpointing: bool

    def batches(self, count: int) -> list[Batch]:
        """Full rows of random tokens, `count` steps of them."""
        rng = np.random.default_rng(SEED)
        length = self.shape.row_tokens // _EXAMPLES_A_ROW
        drawn = rng.integers(3, self.shape.config.vocab_size, (count, self.rows * _EXAMPLES_A_ROW, length))
        row = range(_EXAMPLES_A_ROW)
        rows = [[_EXAMPLES_A_ROW * number + index for index in row] for number in range(self.rows)]
        steps = [[Example(tuple(tokens), length // 2) for tokens in step] for step in drawn.tolist()]
        return [collate(examples, rows).to(self.device) for examples in steps]

    @property
    def config(self) -> TrainConfig:
        """The training of a client's round."""
        return TrainConfig(ROUND_STEPS, self.rows, self.shape.row_tokens, gradient_checkpointing=self.checkpointing)

    def timed(self, call: Callable[[], T]) -> tuple[T, float]:
        """The call's result and its seconds, with everything that it left to the device."""
        _finish(self.device)

        def finished() -> T:
            result = call()
            _finish(self.device)
            return result

        return wall_timed(finished)

    def speed(self, step: Callable[[Batch], float]) -> dict[str, Any]:
        """Loss before training, tokens a second after the first steps, and the most GiB that it took; why, if not."""
        cuda = self.device.type == "cuda"
        if cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        batches = self.batches(WARM + STEPS)
        try:
            loss, *_ = [step(batch) for batch in batches[:WARM]]
            _, seconds = self.timed(lambda: [step(batch) for batch in batches[WARM:]])
        except torch.cuda.OutOfMemoryError:
            return {"not measured": "out of memory"}
        tokens = STEPS * self.rows * self.shape.row_tokens
        peak = torch.cuda.max_memory_allocated() / 2**30 if cuda else None
        return {"loss": loss, "tokens_per_second": tokens / seconds, "peak_gib": peak}


def ours(bench: Bench, model: Model) -> dict[str, Any]:
    """Our training step, as a client takes it, from an adapter that changes nothing yet."""
    model.set_adapter(_untrained(model))
    with reproducible(bench.device, SEED), training_mode(model, bench.config):
        loop = Loop(model, bench.config)

        def step(batch: Batch) -> float:
            before = loop.nats, loop.answers
            loop.step([batch], RATE)
            return (loop.nats - before[0]) / (loop.answers - before[1])

        return bench.speed(step)


def _untrained(model: Model) -> AdapterState:
    return AdapterState(
        {n: a if n.endswith("lora_A") else np.zeros_like(a) for n, a in model.get_adapter().arrays.items()}
    )


def bare(bench: Bench, model: Model, layers: Sequence[str] | str) -> dict[str, Any]:
    """The loop of PEFT on the same base, with an adapter on `layers`; the model loses its own adapter."""
    base = model.module.unload()
    lora = LoraConfig(r=model.spec.rank, lora_alpha=model.spec.alpha, target_modules=layers, task_type="CAUSAL_LM")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        module = get_peft_model(base, lora).train()
    if bench.checkpointing:
        module.gradient_checkpointing_enable()
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    bfloat16 = bench.device.type == "cuda"
    measured = bench.speed(BareLoop(module, adamw(trained, bench.device), bfloat16).step)
    module.unload()
    return measured


def fitted(shape: Shape, model: Model, device: torch.device) -> Bench:
    """As many rows a step as fit, by halves from the shape's most; checkpointing only where one row does not."""
    for checkpointing in (False, True):
        rows = shape.most_rows
        while rows:
            bench = Bench(shape, device, rows, checkpointing)
            if "tokens_per_second" in ours(bench, model):
                return bench
            rows //= 2
    raise SystemExit("expected memory for one row with checkpointing, got too little")


def client_round(bench: Bench, model: Model) -> dict[str, Any]:
    """Seconds of a round, adapter in and adapter out, and what is not training steps as a part of it."""
    parent, fresh_seconds = bench.timed(lambda: fresh_adapter(model, SEED))
    batches = bench.batches(ROUND_STEPS)

    def train() -> float:
        model.set_adapter(parent)
        loop = Loop(model, bench.config)

        def steps() -> None:
            for batch in batches:
                loop.step([batch], RATE)

        _, seconds = bench.timed(steps)
        model.get_adapter()
        return seconds

    with reproducible(bench.device, SEED), training_mode(model, bench.config):
        steps, seconds = bench.timed(train)
    return {"first_adapter_seconds": fresh_seconds, "seconds": seconds, "overhead": (seconds - steps) / seconds}


def attribution(bench: Bench, model: Model, subject: Subject) -> dict[str, Any]:
    """Seconds of each fast method and of `attribute`, relative to generating as many tokens greedily."""
    example = make_example(model)
    prompt, answer = (
        model.tokenizer.decode(part, skip_special_tokens=True)
        for part in (example.tokens[:PROMPT], example.tokens[PROMPT:])
    )
    calls: Mapping[str, Callable[[], object]] = {
        "generate": lambda: generate(model, subject.adapter, prompt, ANSWER),
        **{n: partial(METHODS[n].score, subject, example, Effort()) for n in ("gradient", "direct-logit", "protoken")},
        "attribute": lambda: attribute(subject, prompt, answer),
    }
    seconds = {}
    for name, call in calls.items():
        model.set_adapter(subject.adapter)
        call()  # it reads the contributions, which is not meant
        seconds[name] = bench.timed(call)[1]
    takes = seconds.pop("generate")
    return {"generation_seconds": takes} | {f"{n}_to_generation": value / takes for n, value in seconds.items()}


def removal(bench: Bench, subject: Subject) -> dict[str, Any]:
    """Seconds of a round's sum again without one of its organisations: an exact removal, in NumPy."""
    ((step,),) = subject.contributions.lanes
    remaining = [WeightedUpdate(u.organisation, 1 / (ORGANISATIONS - 1), u.state) for u in step.updates[1:]]
    state = step.before()
    return {"organisations": ORGANISATIONS, "seconds": bench.timed(lambda: RULE.aggregate(state, remaining))[1]}


def measure(shape: Shape, quantisation: Quantisation, device: torch.device) -> dict[str, Any]:
    """All figures of a shape; the reason where there is no such base here."""
    try:
        model, seconds = wall_timed(partial(random_model, shape, quantisation, device))
    except ImportError as error:
        return {"not measured": f"{error}"}
    bench = fitted(shape, model, device)
    row = {"rows": bench.rows, "row_tokens": shape.row_tokens, "checkpointing": bench.checkpointing}
    parts: dict[str, Any] = {"build_seconds": seconds, **row, "ours": ours(bench, model)}
    parts["round"] = client_round(bench, model)
    subject = random_subject(model, ORGANISATIONS)
    with reproducible(device, SEED):
        parts["attribution"] = attribution(bench, model, subject)
    parts["removal"] = removal(bench, subject)
    names = sorted(model.layers)
    for name, layers in (("bare, same layers", names), ("bare", "all-linear")):
        parts[name] = bare(bench, model, layers)
        if "tokens_per_second" in parts[name]:
            parts[f"times {name}"] = parts["ours"]["tokens_per_second"] / parts[name]["tokens_per_second"]
    return parts


def main() -> None:
    """Measure one shape after another until the seconds are spent; write after each, print at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=arguments.device, default="cuda")
    parser.add_argument("--seconds", type=float, default=400)
    parser.add_argument("--shapes", nargs="+", default=[name for name in SHAPES if name != "smallest"], choices=SHAPES)
    parser.add_argument("--results", type=arguments.output, default=report.RESULTS)
    options = parser.parse_args()
    started, longest = time.monotonic(), 0.0
    figures: dict[str, Any] = {}
    for quantisation in ("nf4", "none"):
        for name in options.shapes:
            left = options.seconds - (time.monotonic() - started)
            case = f"{name}, {'NF4' if quantisation == 'nf4' else 'not quantised'}"
            if left < longest:
                figures[case] = {"not measured": f"{left:.0f} s were left, the longest before it took {longest:.0f} s"}
            else:
                call = partial(measure, SHAPES[name], quantisation, options.device)
                figures[case], seconds = wall_timed(call)
                longest = max(longest, seconds)
            # After each: what is measured stays, whatever ends the script.
            report.write("gpu", figures, "benchmarks/gpu.sh", SEED, options.results)
    header = ("", "tokens/s", "× bare", "× bare, same layers", "attribution / generation", "removal, s")
    rows = [(case, *_row(found)) for case, found in figures.items() if isinstance(found, Mapping)]
    report.print_table(header, rows)


def _row(found: Mapping[str, Any]) -> tuple[object, ...]:
    if "ours" not in found:
        return (found["not measured"], "", "", "", "")
    return (
        found["ours"]["tokens_per_second"], found.get("times bare", "–"), found.get("times bare, same layers", "–"),
        found["attribution"]["attribute_to_generation"], found["removal"]["seconds"],
    )  # fmt: skip


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
