"""Speed of attribution against ProToken as published, in one run on one model; memory; growth curves.

    python -m benchmarks.provenance.speed [--base foedus-tiny] [--repeats 3] [--speaking]

A 64-token prompt and 32 answer tokens; contributions are random updates, which cost as much as trained ones. Times are
CPU seconds of the process in one thread, medians of some repeats, so that other work on the machine hardly counts; the
first call, which reads the contributions, is not among them. Each call has another text, of which nothing is kept. Peak
memory is that of a process of its own for each number of organisations, which reads the updates one by one, as from a
run folder. With --speaking 6 organisations are scored on the default base, as it is served with the default settings,
and nothing else is measured.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import assets
from benchmarks import arguments, report
from benchmarks.in_process import RULE, address
from benchmarks.provenance.naive import client_adapters, naive_protoken
from benchmarks.timing import cpu_timed
from core import lora
from core.adapter import AdapterState
from core.aggregation import WeightedUpdate
from core.config import RunConfig
from llm.batches import Example
from llm.determinism import reproducible
from llm.evaluate import generate
from llm.model import Model, ModelSpec, load
from llm.sources import base_of_settings
from provenance.attribution import METHODS, attribute
from provenance.contributions import Contributions
from provenance.history import StoredRound
from provenance.method import Effort, Subject

PROMPT, ANSWER = 64, 32
FEW = 6
"""Organisations, where something else than their number is looked at."""
ORGANISATIONS = (2, FEW, 10, 16, 55, 200, 1000)
ANSWERS = (8, 16, 32, 64)
DEPTHS = (2, 4, 8)
FAST = ("gradient", "direct-logit", "protoken")
NAIVE_MOST = 55
"""Most organisations for which the naive way ends in minutes."""
MEMORY = (10, 55, 200, 1000)
_WORDS = "A patient asks which medicine helps against a headache, and how much of it is safe to take in one day. " * 8


def random_subject(model: Model, count: int) -> Subject:
    """One round of `count` organisations; their random updates are drawn anew whenever they are read."""
    fresh = lora.fresh(lora.Layout.of(model.modules, model.spec.rank), b"speed")
    state = RULE.initial(fresh)
    reads = [partial(_update, state, index) for index in range(count)]
    updates = [WeightedUpdate(address(index), 1 / count, read) for index, read in enumerate(reads)]
    after = RULE.aggregate(state, updates).state
    steps = (StoredRound(lambda: state, lambda: after, tuple(updates)),)
    contributions = Contributions(RULE, fresh, (steps,), model.spec.alpha / model.spec.rank, model.device)
    subject = Subject("speed", after.digest, model, RULE.adapter(after, fresh), contributions)
    model.set_adapter(subject.adapter)
    return subject


def make_example(model: Model, answer: int = ANSWER) -> Example:
    """Some text of PROMPT tokens and `answer` more."""
    tokens = tuple(model.tokenizer(_WORDS * (1 + answer // 64))["input_ids"][: PROMPT + answer])
    return Example(tokens, PROMPT)


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Median CPU seconds of a call, after one that does not count."""
    call()
    return median(cpu_timed(call)[1] for _ in range(repeats))


def against_naive(curves: Mapping[str, Mapping[int, float]], *counts: int) -> dict[str, Any]:
    """Speed of each method relative to the naive way, for some numbers of organisations."""
    naive = curves["naive"]
    return {f"{count}_organisations": {name: naive[count] / curves[name][count] for name in FAST} for count in counts}


def against_generation(model: Model, repeats: int) -> dict[str, Any]:
    """Seconds to generate 32 tokens greedily with a cache, and attribution of as many as a part of that.

    `attribute` is all of it by the default method, as a command does it: scores, familiarity, verdict and words.
    """
    subject, example = random_subject(model, FEW), make_example(model)
    words = partial(model.tokenizer.decode, skip_special_tokens=True)
    prompt = words(example.tokens[:PROMPT])
    made = max(len(generate(model, subject.adapter, prompt, ANSWER)), 1)
    takes = seconds(lambda: generate(model, subject.adapter, prompt, ANSWER), repeats) * ANSWER / made
    parts = {name: seconds(_call(name, subject, example), repeats) / takes for name in FAST}
    texts = ((words(text.tokens[:PROMPT]), words(text.tokens[PROMPT:])) for text in _texts(example))
    parts["attribute"] = seconds(lambda: attribute(subject, *next(texts)), repeats) / takes
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


def peak_mib(model: Model, count: int) -> float:
    """Peak resident memory of this process in MiB during one attribution to `count` organisations."""
    call = _call("gradient", random_subject(model, count), make_example(model))
    # Writing 5 forgets the peak so far: that of loading the model is not meant.
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    call()
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def growth(model: Model, repeats: int) -> dict[str, dict[str, dict[int, float]]]:
    """Seconds by number of organisations, answer tokens and blocks, for each method and the naive way."""
    example = make_example(model)
    curves: dict[str, dict[str, dict[int, float]]] = {"K": {}, "T": {}, "depth": {}}
    for count in ORGANISATIONS:
        _add(curves["K"], count, random_subject(model, count), example, repeats)
    few = random_subject(model, FEW)
    for length in ANSWERS:
        _add(curves["T"], length, few, make_example(model, length), repeats)
    for depth, deep in _deep_models(model):
        _add(curves["depth"], depth, random_subject(deep, FEW), example, repeats)
    return curves


def main() -> None:
    """Measure and write; `python -m benchmarks.charts` draws the growth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default=assets.BASE_MODEL)
    parser.add_argument("--repeats", type=arguments.count(), default=3)
    parser.add_argument("--speaking", action="store_true")
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.speaking:
        speaking(options.repeats)
        return
    model = load(ModelSpec(options.base, "none", device="cpu"))
    with reproducible(model.device, 0):
        if options.peak:
            sys.stdout.write(f"{peak_mib(model, options.peak):.1f}\n")
            return
        curves = growth(model, options.repeats)
        figures = {
            "base": Path(options.base).name,
            "prompt_tokens": PROMPT,
            "answer_tokens": ANSWER,
            "target_times_faster": {"6_organisations": 20, "55_organisations": 100},
            "times_faster_than_naive": against_naive(curves["K"], FEW, NAIVE_MOST),
            "against_generation": against_generation(model, options.repeats),
            "peak_memory": memory(options.base),
            "growth": [
                {"grows": axis, "to": size} | {name: points.get(size) for name, points in lines.items()}
                for axis, lines in curves.items()
                for size in lines["gradient"]
            ],
        }
    command = f"python -m benchmarks.provenance.speed --base {figures['base']} --repeats {options.repeats}"
    report.write("provenance_speed", figures, command, 0)


def speaking(repeats: int) -> None:
    """Measure and write what scoring takes on the default base, relative to the naive way and to generating."""
    model, curves = base_of_settings(RunConfig()), dict[str, dict[int, float]]()
    with reproducible(model.device, 0):
        _add(curves, FEW, random_subject(model, FEW), make_example(model), repeats)
        figures = {
            "base": RunConfig().base,
            "times_faster_than_naive": against_naive(curves, FEW),
            "against_generation": against_generation(model, repeats),
        }
    command = f"python -m benchmarks.provenance.speed --repeats {repeats} --speaking"
    report.write("provenance_speed_speaking", figures, command, 0)


def _add(lines: dict[str, dict[int, float]], size: int, subject: Subject, example: Example, repeats: int) -> None:
    for name in FAST:
        lines.setdefault(name, {})[size] = seconds(_call(name, subject, example), repeats)
    if len(subject.contributions.organisations) <= NAIVE_MOST:
        # Timed once, and not repeated: it takes minutes.
        adapters: Sequence[AdapterState] = list(client_adapters(subject.contributions).values())
        lines.setdefault("naive", {})[size] = cpu_timed(lambda: naive_protoken(subject, example, adapters))[1]


def _call(name: str, subject: Subject, example: Example) -> Callable[[], object]:
    subject.model.set_adapter(subject.adapter)
    texts = _texts(example)
    return lambda: METHODS[name].score(subject, next(texts), Effort())


def _texts(example: Example) -> Iterator[Example]:
    """Texts as long as an example: its tokens, from another one on."""
    for start in cycle(range(len(example))):
        yield Example(example.tokens[start:] + example.tokens[:start], example.prompt_length)


def _update(state: AdapterState, index: int) -> AdapterState:
    source = np.random.default_rng(index)
    shapes = state.shapes.items()
    return AdapterState({n: 0.02 * source.standard_normal(shape, dtype=np.float32) for n, shape in shapes})


def _deep_models(model: Model) -> Iterator[tuple[int, Model]]:
    """Models like this one, of random weights, with other numbers of blocks."""
    for depth in DEPTHS:
        with tempfile.TemporaryDirectory() as folder:
            config = AutoConfig.from_pretrained(model.folder)
            # The list of layer types has the old length; without it the family's default applies.
            config.num_hidden_layers, config.layer_types = depth, None
            torch.manual_seed(0)
            AutoModelForCausalLM.from_config(config).save_pretrained(folder)
            AutoTokenizer.from_pretrained(model.folder).save_pretrained(folder)
            yield depth, load(ModelSpec(folder, "none", device="cpu"))


if __name__ == "__main__":
    main()
