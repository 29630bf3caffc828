"""Erases by every method, looks at what is left, and keeps all raw figures: one file for each task and seed.

A file is {task, seed, methods: {name: look}}; of the seeds beyond the first few only the retrained model is made. A
look holds `seconds`, `steps` (optimiser steps of all members), `sets` (of each record nats, tokens, hits and tail),
`truths` (nats and tokens of right, paraphrased and wrong answers) and `exposures`. The adapters of the first seeds are
kept for follow.py. Nothing is decided here; tables.py reads the files.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from assets import BASE_MODEL
from benchmarks.in_process import RULE, Member, Plan, Round, address, fresh_adapter, learn
from benchmarks.unlearning import canaries
from benchmarks.unlearning.tasks import EMBEDDED, SLICES, TASKS, Task, Truth
from core import lora
from core.adapter import AdapterState
from core.aggregation import weights
from core.genesis import CALIBRATION_ROUNDS, CALIBRATION_STEPS
from llm.data import Record
from llm.evaluate import record_losses
from llm.model import Model, ModelSpec, Quantisation, load
from llm.train import TrainConfig
from unlearning.npo import BridgeConfig, bridge

RANK, ALPHA = 16, 32.0
SEEDS, REFERENCES = 5, 8
"""Seeds with all methods, whose adapters are kept, and with the retrained model."""
METHODS = ("untouched", "retrained", "remove", "repair", "npo", "simnpo", "isolated untouched", "isolated remove")
"""All that erase the whole organisation, or do not."""
T = TypeVar("T")
_BRIDGES = {"npo": BridgeConfig(TrainConfig(1), "npo", 0.1), "simnpo": BridgeConfig(TrainConfig(1), "simnpo", 2.5)}


@dataclass(frozen=True)
class Made:
    """A state by one method: B of every module, how long making it took, and the steps of all members together."""

    state: AdapterState
    seconds: float
    steps: int


def model_of(base: str, quantisation: Quantisation = "none") -> Model:
    """A base with a fresh adapter of the size that all tasks use."""
    return load(ModelSpec(base, quantisation, RANK, ALPHA, "cpu"))


def task_of(name: str, base: Path, data: Path) -> tuple[Task, Model]:
    """A task, and the model that it is for."""
    model = model_of(base_of(name, base))
    return TASKS[name](model, data), model


def base_of(name: str, small: Path) -> str:
    """The base that a task is for: the embedded one, or the small one."""
    return BASE_MODEL if name in EMBEDDED else str(small)


def run(name: str, task: Task, model: Model, seed: int, folder: Path) -> Path:
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
            save(adapter.to_bytes(), kept(folder, name, seed, method))
    save(json.dumps({"task": name, "seed": seed, "methods": looks}).encode(), file)
    return file


def kept(folder: Path, name: str, seed: int, method: str) -> Path:
    """Where the adapter of one of the first seeds lies."""
    return folder / "states" / f"{name}-{seed}-{method}.safetensors".replace(" ", "-")


def methods(model: Model, task: Task, seed: int) -> dict[str, Made]:
    """The state of every main method."""
    rounds, seconds = _timed(lambda: list(learn(model, task.members, task.plan, seed)))
    return {
        "untouched": Made(rounds[-1].after, seconds, _steps(task.plan)),
        "retrained": retrained(model, task, seed),
        "remove": remove(task, rounds),
        "repair": repair(model, task, rounds, seed),
    }


def further(model: Model, task: Task, untouched: AdapterState, seed: int) -> dict[str, Made]:
    """The others' states. `isolated` is lane-size 1: each trains alone, and what is served is their average."""
    lanes, seconds = _timed(lambda: [_alone(model, task, place, seed) for place in range(len(task.members))])
    everybody = [*range(len(lanes))]
    rest = [place for place in everybody if place != task.erased]
    removed, removing = _timed(lambda: composed(task, lanes, rest))
    made = {
        **{name: _bridged(model, task, untouched, name, seed) for name in _BRIDGES},
        "isolated untouched": Made(composed(task, lanes, everybody), seconds, _steps(task.plan)),
        "isolated remove": Made(removed, removing, 0),
    }
    return made | (sharded(model, task, lanes, seed) if task.canaries else {})


def retrained(model: Model, task: Task, seed: int) -> Made:
    """What `replay` makes, and what all else is compared with: the same rounds without the erased."""
    rounds, seconds = _timed(lambda: list(learn(model, task.members, task.without, seed)))
    return Made(rounds[-1].after, seconds, _steps(task.without))


def remove(task: Task, rounds: Sequence[Round]) -> Made:
    """The recursion again without the erased, with weights over those who remain."""

    def summed() -> AdapterState:
        state = rounds[0].before
        for done in rounds:
            kept = [update for update in done.updates if update.organisation != address(task.erased)]
            share = weights({u.organisation: _examples(task)[u.organisation] for u in kept})
            state = RULE.aggregate(state, [replace(u, weight=share[u.organisation]) for u in kept]).state
        return state

    return Made(*_timed(summed), 0)


def repair(model: Model, task: Task, rounds: Sequence[Round], seed: int) -> Made:
    """`remove`, and a calibration behind the last round."""
    plan = calibration(task.without)

    def repaired() -> AdapterState:
        start = remove(task, rounds).state
        return list(learn(model, task.members, plan, seed, start))[-1].after

    return Made(*_timed(repaired), _steps(plan))


def calibration(plan: Plan) -> Plan:
    """The short rounds of those who take part in a plan's first."""
    rounds = plan.rounds[:1] * (CALIBRATION_ROUNDS * len(plan.rounds))
    return replace(plan, rounds=rounds, steps=max(1, plan.steps // CALIBRATION_STEPS))


def composed(task: Task, lanes: Sequence[AdapterState], places: Sequence[int]) -> AdapterState:
    """The average of isolated lanes, by examples."""
    total = sum(task.members[place].examples for place in places)
    return RULE.compose([(task.members[place].examples / total, lanes[place]) for place in places])


def sharded(model: Model, task: Task, lanes: Sequence[AdapterState], seed: int) -> dict[str, Made]:
    """The erased stays with SLICES isolated adapters of its own; the canaries of the first shard are deleted."""
    own = task.members[task.erased].records
    planted = {canary.record for canary in task.canaries}
    parts = [Member(own[place::SLICES]) for place in range(SLICES)]
    left = [Member(tuple(record for record in parts[0].records if record not in planted)), *parts[1:]]
    short = replace(task.plan, steps=max(1, task.plan.steps // SLICES))

    def shard_of(place: int, members: Sequence[Member]) -> AdapterState:
        plan = replace(short, rounds=((place,),) * len(short.rounds))
        return list(learn(model, members, plan, seed))[-1].after

    def served(shards: Sequence[AdapterState]) -> AdapterState:
        whole = RULE.compose([(1 / SLICES, state) for state in shards])
        return composed(task, [whole if p == task.erased else lane for p, lane in enumerate(lanes)], range(len(lanes)))

    first, seconds = _timed(lambda: [shard_of(place, parts) for place in range(SLICES)])
    rebuilt, again = _timed(lambda: shard_of(0, left))
    steps = short.steps * len(short.rounds)
    return {
        "shards untouched": Made(served(first), seconds, SLICES * steps),
        "shards": Made(served([rebuilt, *first[1:]]), again, steps),
    }


def look(model: Model, adapter: AdapterState, task: Task) -> dict[str, Any]:
    """What tables.py needs to know of an adapter."""
    length = task.plan.max_length
    return {
        "sets": {name: _losses(model, adapter, records, length) for name, records in task.sets.items()},
        "truths": {name: _answers(model, adapter, truths, length) for name, truths in task.truths.items()},
        "exposures": canaries.exposures(model, adapter, task.canaries) if task.canaries else [],
    }


def _alone(model: Model, task: Task, place: int, seed: int) -> AdapterState:
    plan = replace(task.plan, rounds=((place,),) * len(task.plan.rounds))
    return list(learn(model, task.members, plan, seed))[-1].after


def _bridged(model: Model, task: Task, state: AdapterState, name: str, seed: int) -> Made:
    """As many steps as `repair` gives each member, at a tenth of the learning rate."""
    plan = task.plan
    short = calibration(plan)
    steps = short.steps * len(short.rounds)
    config = TrainConfig(steps, plan.batch_size, plan.max_length, plan.learning_rate / 10)
    start = RULE.adapter(state, fresh_adapter(model, seed))
    own = task.members[task.erased].records
    found, seconds = _timed(
        lambda: bridge(model, start, own, task.others, replace(_BRIDGES[name], training=config), seed)
    )
    return Made(lora.factor(found, "B"), seconds, 2 * steps)


def _losses(model: Model, adapter: AdapterState, records: Sequence[Record], length: int) -> dict[str, list[float]]:
    losses = record_losses(model, adapter, records, length)
    return {name: [getattr(loss, name) for loss in losses] for name in ("nats", "tokens", "hits", "tail")}


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


def _examples(task: Task) -> dict[Any, int]:
    return {address(place): member.examples for place, member in enumerate(task.members)}


def _steps(plan: Plan) -> int:
    return plan.steps * sum(map(len, plan.rounds))


def _timed(action: Callable[[], T]) -> tuple[T, float]:
    started = time.perf_counter()
    return action(), time.perf_counter() - started


def save(data: bytes, file: Path) -> None:
    """Write a file in whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.part")
    part.write_bytes(data)
    part.replace(file)
