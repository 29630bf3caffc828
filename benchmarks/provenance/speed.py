"""How fast, against ProToken as its paper does it, in one run on one model; memory; growth curves.

    python -m benchmarks.provenance.speed [--base foedus-tiny] [--repeats 3]

A 64-token prompt and 32 answer tokens; contributions are random updates, which cost as much as trained ones. Times are
the process's CPU seconds in one thread, the median of some repeats, so that other work on the machine hardly counts;
the first call, which reads the contributions, is not among them and is given apart. Peak memory is that of a process
of its own for each K, which reads its updates one by one, as a run folder's are.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import assets
from benchmarks import report
from benchmarks.in_process import RULE, address
from benchmarks.plot import Curve, Panel, plot
from benchmarks.provenance.naive import client_adapters, naive_protoken
from core import lora
from core.adapter import AdapterState
from core.aggregation import WeightedUpdate
from llm.data import Example
from llm.determinism import reproducible
from llm.evaluate import generate
from llm.model import Model, ModelSpec, load
from provenance.attribution import METHODS, attribute
from provenance.contributions import Contributions, Part, Step
from provenance.method import Effort, Subject

PROMPT, ANSWER = 64, 32
ORGANISATIONS = (2, 6, 16, 55, 200)
ANSWERS = (8, 16, 32, 64)
DEPTHS = (2, 4, 8)
FAST = ("gradient", "direct-logit", "protoken")
NAIVE_MOST = 55
"""Organisations for which the naive way is still waited for."""
MEMORY = (6, 55, 200)
PICTURE = Path(__file__).parents[2] / "docs" / "results" / "provenance-growth.svg"
_WORDS = "A patient asks which medicine helps against a headache, and how much of it is safe to take in one day. " * 8


def subject_of(model: Model, count: int) -> Subject:
    """One round of `count` organisations with random updates that are drawn anew whenever they are read."""
    fresh = lora.fresh(lora.Layout.of(model.modules, model.spec.rank), b"speed")
    state = RULE.initial(fresh)
    reads = [partial(_update, state, place) for place in range(count)]
    updates = [WeightedUpdate(address(place), 1 / count, read) for place, read in enumerate(reads)]
    after = RULE.aggregate(state, updates).state
    parts = tuple(Part(u.organisation, u.weight, read) for u, read in zip(updates, reads, strict=True))
    steps = (Step(lambda: state, lambda: after, parts),)
    contributions = Contributions(RULE, fresh, (steps,), model.spec.alpha / model.spec.rank, model.device)
    subject = Subject("speed", after.digest, model, RULE.adapter(after, fresh), contributions)
    model.set_adapter(subject.adapter)
    return subject


def example_of(model: Model, answer: int = ANSWER) -> Example:
    """Some text of PROMPT tokens and `answer` more."""
    tokens = tuple(model.tokenizer(_WORDS * (1 + answer // 64))["input_ids"][: PROMPT + answer])
    return Example(tokens, PROMPT)


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Median CPU seconds of a call, after one that does not count."""
    call()
    return median(_once(call) for _ in range(repeats))


def against_naive(curves: Mapping[str, Mapping[int, float]]) -> dict[str, Any]:
    """How many times faster than the naive way each method is, by the growth in K."""
    naive = curves["naive"]
    return {
        f"{count}_organisations": {name: naive[count] / curves[name][count] for name in FAST}
        for count in (6, NAIVE_MOST)
    }


def against_generation(model: Model, repeats: int) -> dict[str, Any]:
    """Seconds to generate 32 tokens greedily with a cache, and attribution of as many as a part of that.

    `attribute` is all of it by the default method, as a command does it: scores, familiarity, verdict and texts.
    """
    subject, example = subject_of(model, 6), example_of(model)
    prompt = model.tokenizer.decode(example.tokens[:PROMPT], skip_special_tokens=True)
    made = max(len(generate(model, subject.adapter, prompt, ANSWER)), 1)
    takes = seconds(lambda: generate(model, subject.adapter, prompt, ANSWER), repeats) * ANSWER / made
    parts = {name: seconds(_call(name, subject, example), repeats) / takes for name in FAST}
    answer = model.tokenizer.decode(example.tokens[PROMPT:], skip_special_tokens=True)
    parts["attribute"] = seconds(lambda: attribute(subject, prompt, answer), repeats) / takes
    return {"generation_seconds": takes, "generated_tokens": made, "attribution_to_generation": parts}


def memory(base: str) -> dict[str, Any]:
    """Peak resident memory in MiB of an attribution by `gradient`, for some K, each in a fresh process."""
    found = {}
    for count in MEMORY:
        command = [sys.executable, "-m", "benchmarks.provenance.speed", "--base", base, "--peak", str(count)]
        found[f"{count}_organisations_mib"] = json.loads(
            subprocess.run(command, capture_output=True, check=True).stdout
        )
    values = list(found.values())
    return {**found, "most_to_least": max(values) / min(values)}


def growth(model: Model, repeats: int) -> dict[str, dict[str, dict[int, float]]]:
    """Seconds by number of organisations, answer tokens and blocks, for each method and the naive way."""
    example = example_of(model)
    curves: dict[str, dict[str, dict[int, float]]] = {"K": {}, "T": {}, "depth": {}}
    for count in ORGANISATIONS:
        _add(curves["K"], count, subject_of(model, count), example, repeats)
    few = subject_of(model, 6)
    for length in ANSWERS:
        _add(curves["T"], length, few, example_of(model, length), repeats)
    for depth, deep in _deep_models(model):
        _add(curves["depth"], depth, subject_of(deep, 6), example, repeats)
    return curves


def draw(curves: dict[str, dict[str, dict[int, float]]]) -> str:
    """The growth curves as a picture."""
    titles = {"K": "organisations", "T": "answer tokens", "depth": "blocks"}
    return plot(
        [
            Panel(
                titles[axis], "CPU seconds", tuple(Curve(name, tuple(points.items())) for name, points in lines.items())
            )
            for axis, lines in curves.items()
        ]
    )


def main() -> None:
    """Measure, write and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default=assets.BASE_MODEL)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peak", type=int, help="only print the peak memory of one attribution to so many")
    options = parser.parse_args()
    model = load(ModelSpec(options.base, "none", device="cpu"))
    with reproducible(model.device, 0):
        if options.peak:
            call = _call("gradient", subject_of(model, options.peak), example_of(model))
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # loading a model has a peak of its own
            call()
            status = Path("/proc/self/status").read_text(encoding="utf-8")
            sys.stdout.write(f"{int(status.split('VmHWM:')[1].split()[0]) / 1024:.1f}\n")
            return
        curves = growth(model, options.repeats)
        figures = {
            "base": Path(options.base).name,
            "prompt_tokens": PROMPT,
            "answer_tokens": ANSWER,
            "target_times_faster": {"6_organisations": 20, "55_organisations": 100},
            "times_faster_than_naive": against_naive(curves["K"]),
            "against_generation": against_generation(model, options.repeats),
            "peak_memory": memory(options.base),
            "growth": [_row(axis, size, lines) for axis, lines in curves.items() for size in lines["gradient"]],
        }
    PICTURE.write_text(draw(curves), encoding="utf-8")
    command = f"python -m benchmarks.provenance.speed --base {figures['base']} --repeats {options.repeats}"
    report.write("provenance_speed", figures, command, 0)


def _row(axis: str, size: int, lines: dict[str, dict[int, float]]) -> dict[str, Any]:
    return {"grows": axis, "to": size} | {name: points.get(size) for name, points in lines.items()}


def _add(lines: dict[str, dict[int, float]], size: int, subject: Subject, example: Example, repeats: int) -> None:
    for name in FAST:
        lines.setdefault(name, {})[size] = seconds(_call(name, subject, example), repeats)
    if len(subject.contributions.organisations) <= NAIVE_MOST:
        adapters: Sequence[AdapterState] = list(client_adapters(subject.contributions).values())
        lines.setdefault("naive", {})[size] = _once(lambda: naive_protoken(subject, example, adapters))


def _call(name: str, subject: Subject, example: Example) -> Callable[[], object]:
    subject.model.set_adapter(subject.adapter)
    return lambda: METHODS[name](subject, example, Effort())


def _once(call: Callable[[], object]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


def _update(state: AdapterState, place: int) -> AdapterState:
    source = np.random.default_rng(place)
    shapes = state.shapes.items()
    return AdapterState({n: 0.02 * source.standard_normal(shape, dtype=np.float32) for n, shape in shapes})


def _deep_models(model: Model) -> Iterator[tuple[int, Model]]:
    """Models like this one, of random weights, with other numbers of blocks."""
    for depth in DEPTHS:
        with tempfile.TemporaryDirectory() as folder:
            config = AutoConfig.from_pretrained(model.folder)
            config.num_hidden_layers, config.layer_types = depth, None
            torch.manual_seed(0)
            AutoModelForCausalLM.from_config(config).save_pretrained(folder)
            AutoTokenizer.from_pretrained(model.folder).save_pretrained(folder)
            yield depth, load(ModelSpec(folder, "none", device="cpu"))


if __name__ == "__main__":
    main()
