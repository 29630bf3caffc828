"""The price of isolated lanes, and how much of it each composition wins back.

Four organisations train together for three rounds, and each alone in a lane of one, with the same steps, data and
seeds. Then everyone's held-out records are measured under the jointly trained adapter, under the lanes composed by sum,
ensemble and routing, and under the organisation's own lane alone; for routing also the share of the records that went
to the lane of their own organisation. The base is not quantised. Losses are nats per answer token, means over the
seeds; a spread is the standard deviation.

    python -m benchmarks.compositions --data DIR [--base FOLDER …] [--steps N] [--small-steps N] [--seeds N]
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from benchmarks import arguments, report
from benchmarks.in_process import RULE, Member, Schedule, fresh_adapter, train_to_end
from core.adapter import AdapterState
from core.composition import Composition, Part
from core.config import RunConfig
from llm.batches import encode
from llm.data import read_data
from llm.evaluate import Adapters, evaluate, route
from llm.model import Model
from llm.records import OrganisationData
from llm.sources import base_of_settings

ROUNDS = 3
SEEDS = (7, 8, 9)
LIMIT = 32
"""Held-out records of each organisation."""
LENGTH = 128
"""Tokens a row; longer records are cut."""


@dataclass(frozen=True)
class LaneExperiment:
    """A base, and the organisations that train on it."""

    model: Model
    members: tuple[OrganisationData, ...]
    steps: int

    def adapter(self, seed: int, *indices: int) -> AdapterState:
        """The adapter that these organisations train together, as A and B of every module."""
        schedule = Schedule((indices,) * ROUNDS, self.steps, max_length=LENGTH)
        members = [Member(member.train, len(member.train)) for member in self.members]
        return RULE.adapter(train_to_end(self.model, members, schedule, seed), fresh_adapter(self.model, seed))

    def losses(self, adapters: Adapters) -> list[float]:
        """Nats per answer token of everyone's held-out records."""
        return [self.loss(index, adapters) for index in range(len(self.members))]

    def loss(self, index: int, adapters: Adapters) -> float:
        """Nats per answer token of one organisation's held-out records."""
        return evaluate(self.model, adapters, self.members[index].dev, LENGTH, LIMIT).loss

    def routed_home(self, routing: Composition) -> Iterator[float]:
        """By organisation, the percent of its held-out records that are routed to its own lane."""
        for index, member in enumerate(self.members):
            examples = [encode(self.model.tokenizer, record, LENGTH) for record in member.dev[:LIMIT]]
            chosen = route(self.model, routing, [example.tokens[: example.prompt_length] for example in examples])
            yield 100 * sum(part == index for part in chosen) / len(chosen)


def measure(experiment: LaneExperiment, seed: int) -> dict[str, list[float]]:
    """Nats per answer token, by what is served, and the percent of records routed home; each by organisation."""
    indices = range(len(experiment.members))
    lanes = [experiment.adapter(seed, index) for index in indices]
    total = sum(len(member.train) for member in experiment.members)
    parts = tuple(Part(len(m.train) / total, lane) for m, lane in zip(experiment.members, lanes, strict=True))
    summed = RULE.compose([(part.share, part.state) for part in parts])
    routing = Composition("routing", parts)
    return {
        "base": experiment.losses(None),
        "together": experiment.losses(experiment.adapter(seed, *indices)),
        "sum": experiment.losses(RULE.adapter(summed, fresh_adapter(experiment.model, seed))),
        "ensemble": experiment.losses(Composition("ensemble", parts)),
        "routing": experiment.losses(routing),
        "own_lane": [experiment.loss(index, lane) for index, lane in enumerate(lanes)],
        "routed_home_percent": list(experiment.routed_home(routing)),
    }


def table(experiment: LaneExperiment, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """A row for each organisation and one for their mean."""
    found = [measure(experiment, seed) for seed in seeds]
    rows = []
    for index, member in enumerate(experiment.members):
        rows.append(_row(member.name, [{name: values[index] for name, values in one.items()} for one in found]))
    rows.append(_row("mean", [{name: fmean(values) for name, values in one.items()} for one in found]))
    return rows


def _row(name: str, seeds: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    means = {figure: fmean(one[figure] for one in seeds) for figure in seeds[0]}
    losses = means.keys() - {"routed_home_percent"}
    spread = max(stdev(one[figure] for one in seeds) for figure in losses) if len(seeds) > 1 else None
    return {"held_out_records_of": name, **means, "largest_spread": spread}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="a folder with one data set per organisation")
    parser.add_argument("--base", action="append", default=[], help="a base model besides the embedded one")
    parser.add_argument(
        "--steps", type=arguments.count(), default=50, help="steps of an organisation in a round, on foedus-tiny"
    )
    parser.add_argument("--small-steps", type=arguments.count(), default=60, help="the same on the other bases")
    parser.add_argument("--seeds", type=arguments.count(most=len(SEEDS)), default=len(SEEDS))
    options = parser.parse_args()
    config = RunConfig(
        data=str(Path(options.data).absolute()), base="foedus-tiny", quantisation="none", target_blocks="all"
    )
    members = read_data(config).organisations
    figures: dict[str, Any] = {
        "seeds": options.seeds,
        "rank": config.rank,
        "tokens_a_row": LENGTH,
        "held_out_records_each_at_most": LIMIT,
    }
    for base in (config.base, *options.base):
        steps = options.steps if base == config.base else options.small_steps
        model = base_of_settings(replace(config, base=base))
        rows = table(LaneExperiment(model, members, steps), SEEDS[: options.seeds])
        name = f"{Path(base).name}, {ROUNDS} rounds of {steps} steps"
        figures[name] = rows
        report.print_table(tuple(rows[0]), [tuple(row.values()) for row in rows], name)
        # After every base: a run that stops leaves its figures behind.
        report.write("compositions", figures, "python -m benchmarks.compositions --data DATA --base BASE", SEEDS[0])


if __name__ == "__main__":
    main()
