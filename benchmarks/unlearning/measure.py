"""Erases by every method, looks at the result, and keeps all raw figures: one file for each task and seed.

A file is {task, seed, methods: {name: look}}; for seeds beyond the first few only the retrained model is made. A look
holds `seconds`, `steps` (optimiser steps of all members), `sets` (of each record nats, tokens, hits and tail),
`truths` (nats and tokens of right, paraphrased and wrong answers) and `exposures`. The adapters of the first seeds are
kept for follow.py. Nothing is decided here; tables.py reads the files.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from assets import BASE_MODEL
from benchmarks.in_process import (
    RULE,
    Member,
    Schedule,
    TrainedRound,
    address,
    fresh_adapter,
    train_rounds,
    train_to_end,
)
from benchmarks.timing import wall_timed
from benchmarks.unlearning import canaries
from benchmarks.unlearning.tasks import EMBEDDED, SHARDS, TASKS, ErasureTask, Truth
from core import lora
from core.adapter import AdapterState
from core.aggregation import weights
from core.genesis import CALIBRATION_ROUNDS, CALIBRATION_STEPS
from core.storage import blobs
from llm.evaluate import record_losses
from llm.model import Model, ModelSpec, Quantisation, load
from llm.train import TrainConfig
from unlearning.npo import BridgeConfig, bridge

RANK, ALPHA = 16, 32.0
SEEDS, REFERENCES = 5, 8
"""Seeds with all methods, whose adapters are kept, and with the retrained model."""
METHODS = ("untouched", "retrained", "remove", "repair", "npo", "simnpo", "isolated untouched", "isolated remove")
"""The methods that erase the whole organisation, and their starting points."""
_BRIDGES = {"npo": BridgeConfig(TrainConfig(1), "npo", 0.1), "simnpo": BridgeConfig(TrainConfig(1), "simnpo", 2.5)}


@dataclass(frozen=True)
class Made:
    """A state made by one method: B of every module, the seconds it took, and the steps of all members together."""

    state: AdapterState
    seconds: float
    steps: int


def model_of(base: str, quantisation: Quantisation = "none") -> Model:
    """A base with a fresh adapter of the size that all tasks use."""
    return load(ModelSpec(base, quantisation, RANK, ALPHA, device="cpu"))


def task_of(name: str, base: Path, data: Path) -> tuple[ErasureTask, Model]:
    """A task, and its model."""
    model = model_of(base_of(name, base))
    return TASKS[name](model, data), model


def base_of(name: str, small: Path) -> str:
    """The base of a task: the embedded one, or the small one."""
    return BASE_MODEL if name in EMBEDDED else str(small)


def run(name: str, task: ErasureTask, model: Model, seed: int, folder: Path) -> Path:
    """Measure one task under one seed; returns its file, which is left alone if it is there."""
    file = folder / f"{name.replace(' ', '-')}-{seed}.json"
    if file.exists():
        return file
    made = methods(model, task, seed) if seed < SEEDS else {"retrained": retrained(model, task, seed)}
    if seed < SEEDS and name not in EMBEDDED:
        made |= further(model, task, made["untouched"].state, seed)
    looks: dict[str, Any] = {}
    for method, one in made.items():
        adapter = RULE.adapter(one.state, fresh_adapter(model, seed))
        looks[method] = {"seconds": one.seconds, "steps": one.steps} | look(model, adapter, task)
        if seed < SEEDS:
            blobs.write(kept(folder, name, seed, method), adapter.to_bytes())
    blobs.write(file, json.dumps({"task": name, "seed": seed, "methods": looks}).encode())
    return file


def kept(folder: Path, name: str, seed: int, method: str) -> Path:
    """The file of the adapter of one of the first seeds."""
    return folder / "states" / f"{name}-{seed}-{method}.safetensors".replace(" ", "-")


def methods(model: Model, task: ErasureTask, seed: int) -> dict[str, Made]:
    """The state of every main method."""
    rounds, seconds = wall_timed(lambda: list(train_rounds(model, task.members, task.schedule, seed)))
    return {
        "untouched": Made(rounds[-1].after, seconds, steps_of(task.schedule)),
        "retrained": retrained(model, task, seed),
        "remove": remove(task, rounds),
        "repair": repair(model, task, rounds, seed),
    }


def further(model: Model, task: ErasureTask, untouched: AdapterState, seed: int) -> dict[str, Made]:
    """The states of the other methods. `isolated` is lane-size 1: each trains alone, and their average is served."""
    everybody = range(len(task.members))
    alone = [replace(task.schedule, rounds=((i,),) * len(task.schedule.rounds)) for i in everybody]
    lanes, seconds = wall_timed(lambda: [train_to_end(model, task.members, schedule, seed) for schedule in alone])
    rest = [index for index in everybody if index != task.erased]
    removed, removing = wall_timed(lambda: composed(task, lanes, rest))
    made = {
        **{name: _bridged(model, task, untouched, name, seed) for name in _BRIDGES},
        "isolated untouched": Made(composed(task, lanes, everybody), seconds, steps_of(task.schedule)),
        "isolated remove": Made(removed, removing, 0),
    }
    return made | (sharded(model, task, lanes, seed) if task.canaries else {})


def retrained(model: Model, task: ErasureTask, seed: int) -> Made:
    """The reference of all other methods, made as by `replay`: the same rounds without the erased organisation."""
    state, seconds = wall_timed(lambda: train_to_end(model, task.members, task.without, seed))
    return Made(state, seconds, steps_of(task.without))


def remove(task: ErasureTask, rounds: Sequence[TrainedRound]) -> Made:
    """The recursion again without the erased organisation, with weights over the remaining ones."""
    examples = {address(index): member.examples for index, member in enumerate(task.members)}

    def summed() -> AdapterState:
        state = rounds[0].before
        for done in rounds:
            remaining = [update for update in done.updates if update.organisation != address(task.erased)]
            share = weights({u.organisation: examples[u.organisation] for u in remaining}, task.schedule.server_rate)
            state = RULE.aggregate(state, [replace(u, weight=share[u.organisation]) for u in remaining]).state
        return state

    return Made(*wall_timed(summed), 0)


def repair(model: Model, task: ErasureTask, rounds: Sequence[TrainedRound], seed: int) -> Made:
    """`remove`, followed by a calibration."""
    schedule = calibration(task.without)

    def repaired() -> AdapterState:
        return train_to_end(model, task.members, schedule, seed, remove(task, rounds).state)

    return Made(*wall_timed(repaired), steps_of(schedule))


def calibration(schedule: Schedule) -> Schedule:
    """The short rounds after `remove`, of the members that take part in a schedule's first."""
    rounds = schedule.rounds[:1] * (CALIBRATION_ROUNDS * len(schedule.rounds))
    return replace(schedule, rounds=rounds, steps=max(1, schedule.steps // CALIBRATION_STEPS))


def composed(task: ErasureTask, lanes: Sequence[AdapterState], indices: Sequence[int]) -> AdapterState:
    """The average of isolated lanes, by examples."""
    total = sum(task.members[index].examples for index in indices)
    return RULE.compose([(task.members[index].examples / total, lanes[index]) for index in indices])


def sharded(model: Model, task: ErasureTask, lanes: Sequence[AdapterState], seed: int) -> dict[str, Made]:
    """The last organisation stays, with SHARDS isolated adapters; the canaries of its first shard are erased."""
    own = task.members[task.erased].records
    planted = {canary.record for canary in task.canaries}
    parts = [Member(own[shard::SHARDS]) for shard in range(SHARDS)]
    left = [Member(tuple(record for record in parts[0].records if record not in planted)), *parts[1:]]
    short = replace(task.schedule, steps=max(1, task.schedule.steps // SHARDS))

    def trained(shard: int, members: Sequence[Member]) -> AdapterState:
        return train_to_end(model, members, replace(short, rounds=((shard,),) * len(short.rounds)), seed)

    def served(shards: Sequence[AdapterState]) -> AdapterState:
        whole = RULE.compose([(1 / SHARDS, state) for state in shards])
        return composed(task, [whole if i == task.erased else lane for i, lane in enumerate(lanes)], range(len(lanes)))

    first, seconds = wall_timed(lambda: [trained(shard, parts) for shard in range(SHARDS)])
    rebuilt, again = wall_timed(lambda: trained(0, left))
    steps = short.steps * len(short.rounds)
    return {
        "shards untouched": Made(served(first), seconds, SHARDS * steps),
        "shards": Made(served([rebuilt, *first[1:]]), again, steps),
    }


def look(model: Model, adapter: AdapterState, task: ErasureTask) -> dict[str, Any]:
    """The raw figures of an adapter."""
    length = task.schedule.max_length
    losses = {name: record_losses(model, adapter, records, length) for name, records in task.sets.items()}
    figures = ("nats", "tokens", "hits", "tail")
    return {
        "sets": {name: {f: [getattr(loss, f) for loss in found] for f in figures} for name, found in losses.items()},
        "truths": {name: _answers(model, adapter, truths, length) for name, truths in task.truths.items()},
        "exposures": canaries.exposures(model, adapter, task.canaries) if task.canaries else [],
    }


def _bridged(model: Model, task: ErasureTask, state: AdapterState, name: str, seed: int) -> Made:
    """As many steps as `repair` gives each member, at a tenth of the learning rate."""
    schedule = task.schedule
    short = calibration(schedule)
    steps = short.steps * len(short.rounds)
    config = TrainConfig(steps, schedule.batch_size, schedule.max_length, schedule.learning_rate / 10)
    # The bridge trains A and B of one adapter, while the rule's state holds B alone.
    start = RULE.adapter(state, fresh_adapter(model, seed))
    own = task.members[task.erased].records
    found, seconds = wall_timed(
        lambda: bridge(model, start, own, task.others, replace(_BRIDGES[name], training=config), seed)
    )
    return Made(lora.factor(found, "B"), seconds, 2 * steps)


def _answers(model: Model, adapter: AdapterState, truths: Sequence[Truth], length: int) -> dict[str, Any]:
    """Of each question [nats, tokens] of its right answer, the paraphrased one, and each wrong one."""
    asked = [record for truth in truths for record in (truth.right, truth.paraphrase, *truth.wrong)]
    losses: Iterator[list[float]] = iter([[x.nats, x.tokens] for x in record_losses(model, adapter, asked, length)])
    found: dict[str, Any] = {"right": [], "paraphrase": [], "wrong": []}
    for truth in truths:
        found["right"].append(next(losses))
        found["paraphrase"].append(next(losses))
        found["wrong"].append([next(losses) for _ in truth.wrong])
    return found


def steps_of(schedule: Schedule) -> int:
    """The steps of all members together."""
    return schedule.steps * sum(map(len, schedule.rounds))
