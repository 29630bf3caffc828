"""What each form of updates and states saves, what it costs in loss, and how long compressing takes.

Four organisations, one for each domain of real data, train in one process by the product's own rules (`llm`,
`core.wire`, `client_app.feedback`): the same rounds, batches and seeds in every form. Told are

    up, down       how many times fewer bytes an update and a state take than A and B in fp32 at the same rank
    loss           of the organisations on their held-out records after the last round, against fp32 with the same seed
    compressing    the part of an organisation's round that goes into compressing and decompressing

The state of the loss is the one that is served, which is not rounded. Bytes at the shapes of a model of 7 billion
parameters are those of random numbers, by the same code. Whatever is measured is kept in WORK: a measurement that stops
goes on from there.

    python -m benchmarks.wire --data FOLDER --base FOLDER --work DIR [--seeds N] [--rounds N]
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from benchmarks import arguments, report
from benchmarks.agents.federation import DOMAINS, RoundSettings
from benchmarks.in_process import RULE, address, fresh_adapter
from benchmarks.speaking import once
from benchmarks.timing import cpu_timed
from client_app.feedback import Feedback
from core import seeds
from core.adapter import AdapterState
from core.aggregation import WeightedUpdate, weights
from core.canonical import ZERO_DIGEST
from core.intervals import MeanInterval
from core.round_key import RoundKey
from core.wire import DOWN, Packed, to_send
from llm.evaluate import evaluate
from llm.files import read_records
from llm.model import Model, ModelSpec, load
from llm.records import Record
from llm.train import TrainConfig, train

SEEDS = (1, 2, 3, 4, 5)
SETTINGS = RoundSettings(rounds=20, steps=8)
RECORDS, HELD_OUT = 400, 25
"""Of an organisation."""
SERVER_RATE = 1.0
"""The mean: four times it makes this small base diverge in any form."""
LARGE = {"q": (4096, 4096), "k": (4096, 4096), "v": (4096, 4096), "o": (4096, 4096)} | {
    "gate": (4096, 11008), "up": (4096, 11008), "down": (11008, 4096)
}  # fmt: skip
LARGE_BLOCKS, LARGE_RANK = 32, 32
"""Inputs and outputs of the layers of a block of Llama 2 7B; the default rank."""


@dataclass(frozen=True)
class Sending:
    """A federation in one process whose updates and states travel in a form; `folder` is for what sparse leaves out."""

    model: Model
    train: Sequence[Sequence[Record]]
    held_out: Sequence[Sequence[Record]]
    wire: str
    seed: int
    settings: RoundSettings
    folder: Path

    def figures(self) -> dict[str, float]:
        """The loss after the last round, its bytes each way, and seconds of training and of compressing."""
        fresh = fresh_adapter(self.model, self.seed)
        state, seconds = RULE.initial(fresh), {"training": 0.0, "compressing": 0.0}
        shares = weights({address(index): 1 for index in range(len(self.train))}, SERVER_RATE)
        for number in range(self.settings.rounds):
            to_send.cache_clear()  # each organisation is timed as if it were alone
            sent, packing = cpu_timed(partial(to_send, state, self.wire))
            seconds["compressing"] += packing + cpu_timed(partial(_read, sent.data))[1]
            updates = []
            for index, own in enumerate(self.train):
                update, training = cpu_timed(partial(self._trained, sent.state, fresh, own, index, number))
                packed, packing = cpu_timed(partial(self._packed, update, index, number))
                seconds["training"] += training / len(self.train)
                seconds["compressing"] += packing / len(self.train)
                updates.append(WeightedUpdate(address(index), shares[address(index)], packed.state))
            state = RULE.aggregate(state, updates).state
        adapter = RULE.adapter(state, fresh)
        losses = [evaluate(self.model, adapter, records, self.settings.max_length).loss for records in self.held_out]
        return {
            "loss": fmean(losses), "both": adapter.nbytes, "up": len(packed.data), "down": len(sent.data), **seconds
        }  # fmt: skip

    def _trained(
        self, state: AdapterState, fresh: AdapterState, records: Sequence[Record], index: int, number: int
    ) -> AdapterState:
        chosen = self.settings
        config = TrainConfig(
            chosen.steps, chosen.batch_size, chosen.max_length, chosen.learning_rate, chosen.steps * number,
            chosen.steps * chosen.rounds,
        )  # fmt: skip
        seed = seeds.as_int(seeds.local(self.seed, address(index), number))
        return RULE.update(state, train(self.model, records, RULE.start(state, fresh), config, seed).adapter)

    def _packed(self, update: AdapterState, index: int, number: int) -> Packed:
        key = RoundKey(ZERO_DIGEST, 0, 0, number + 1)
        return Feedback(self.folder / f"{self.wire}-{self.seed}-{index}", self.wire).pack(update, key)


def _read(data: bytes | memoryview) -> AdapterState:
    return Packed(data).state


def rows(measured: Mapping[tuple[str, int], Mapping[str, float]], used: Sequence[int]) -> list[dict[str, Any]]:
    """One row for each form: times fewer bytes, change of the loss in percent, time of compressing in percent."""
    found = []
    for wire in DOWN:
        of = [measured[wire, seed] for seed in used]
        plain = [measured["fp32", seed] for seed in used]
        change = [100 * (one["loss"] / other["loss"] - 1) for one, other in zip(of, plain, strict=True)]
        found.append(
            {
                "wire": wire,
                "up_times": min(one["both"] / one["up"] for one in of),
                "down_times": min(one["both"] / one["down"] for one in of),
                "loss": fmean(one["loss"] for one in of),
                "loss_change_percent": str(MeanInterval.of(change)),
                "compressing_percent": 100 * fmean(one["compressing"] / one["training"] for one in of),
            }
        )
    return found


def large_rows(layers: Mapping[str, tuple[int, int]], blocks: int, rank: int) -> list[dict[str, Any]]:
    """One row for each form at the shapes of a large model: bytes of an update and a state, and times fewer."""
    random = np.random.default_rng(1)
    update = AdapterState(
        {
            f"model.layers.{block}.{name}_proj.lora_B": random.normal(0, 1e-3, (outputs, rank)).astype(np.float32)
            for block in range(blocks)
            for name, (_, outputs) in layers.items()
        }
    )
    both = 4 * rank * blocks * sum(map(sum, layers.values()))
    found = []
    for wire, down in DOWN.items():
        packed, packing = cpu_timed(partial(Packed.of, update, wire))
        _, reading = cpu_timed(partial(_read, packed.data))
        state = packed if down == wire else Packed.of(update, down)
        found.append(
            {
                "wire": wire,
                "up_bytes": len(packed.data),
                "down_bytes": len(state.data),
                "up_times": both / len(packed.data),
                "down_times": both / len(state.data),
                "compress_seconds": packing,
                "decompress_seconds": reading,
            }
        )
    return found


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=arguments.folder, required=True, help="a folder of the four domains")
    parser.add_argument("--base", required=True, help="a base model's folder")
    parser.add_argument("--work", type=arguments.output, required=True, help="a folder for what is measured")
    parser.add_argument("--seeds", type=arguments.count(most=len(SEEDS)), default=len(SEEDS))
    parser.add_argument("--rounds", type=arguments.count(), default=SETTINGS.rounds)
    options = parser.parse_args()
    settings = replace(SETTINGS, rounds=options.rounds)
    model = load(ModelSpec(options.base, "none", settings.rank, settings.alpha))
    train_on, held_out = (
        [read_records(options.data / domain / f"{name}.jsonl")[:count] for domain in DOMAINS]
        for name, count in (("train", RECORDS), ("dev", HELD_OUT))
    )
    command = "python -m benchmarks.wire --data FOLDER --base FOLDER --work DIR"
    figures: dict[str, Any] = {"rounds": settings.rounds}
    figures["a model of 7 billion parameters"] = once(
        options.work / "large.json", lambda: large_rows(LARGE, LARGE_BLOCKS, LARGE_RANK)
    )
    report.write("wire", figures, command, SEEDS[0])
    measured = {}
    for number, seed in enumerate(SEEDS[: options.seeds], 1):
        for wire in DOWN:
            case = Sending(model, train_on, held_out, wire, seed, settings, options.work / "feedback")
            place = options.work / f"{Path(options.base).name}-{settings.rounds}-{wire}-{seed}.json"
            measured[wire, seed] = once(place, case.figures)
        # After every seed: a measurement that stops leaves its figures behind.
        figures |= {"seeds": number, "forms": rows(measured, SEEDS[:number])}
        report.write("wire", figures, command, SEEDS[0])
    for title in (name for name, found in figures.items() if isinstance(found, list)):
        report.print_table(tuple(figures[title][0]), [tuple(row.values()) for row in figures[title]], title)


if __name__ == "__main__":
    main()
