"""What it costs not to learn from each other, and what each way to serve isolated lanes wins back.

Four organisations learn together for three rounds, and each alone in a lane of one, with the same steps, data and
seeds. Then everyone's held-out records are measured under what all learned together, under the lanes composed by sum,
ensemble and routing, and under the organisation's own lane alone; routing also says how many records went to their own
organisation's lane. The base is not quantised. Losses are nats per answer token, means over the seeds; a spread is the
standard deviation.

    python -m benchmarks.compositions --data DIR [--base FOLDER …] [--steps N] [--small-steps N] [--seeds N]
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from benchmarks import report
from benchmarks.in_process import RULE, Member, Plan, fresh_adapter, learn
from core.adapter import AdapterState
from core.composition import Composition, Part
from core.config import RunConfig
from llm.batches import encode
from llm.evaluate import Adapters, evaluate, route
from llm.model import Model
from llm.records import OrganisationData
from llm.sources import load_base, read_data

_ROUNDS = 3
_SEEDS = (7, 8, 9)
_LIMIT = 32
"""Held-out records of each organisation."""
_LENGTH = 128
"""Tokens a row; longer records are cut."""


@dataclass(frozen=True)
class World:
    """A base, and the organisations that learn on it."""

    model: Model
    members: tuple[OrganisationData, ...]
    steps: int

    def adapter(self, seed: int, *places: int) -> AdapterState:
        """What the organisations at `places` learn together, as A and B of every module."""
        rounds = (places,) * _ROUNDS
        plan = Plan(rounds, self.steps, max_length=_LENGTH)
        learning = [Member(member.train, len(member.train)) for member in self.members]
        *_, last = learn(self.model, learning, plan, seed)
        return RULE.adapter(last.after, fresh_adapter(self.model, seed))

    def losses(self, adapters: Adapters) -> list[float]:
        """Nats per answer token of everyone's held-out records."""
        return [self.loss(place, adapters) for place in range(len(self.members))]

    def loss(self, place: int, adapters: Adapters) -> float:
        """The same of one organisation's."""
        return evaluate(self.model, adapters, self.members[place].dev, _LENGTH, _LIMIT).loss


def measure(world: World, seed: int) -> dict[str, list[float]]:
    """Nats per answer token, by what is served, and the percent of records routed home, by organisation."""
    places = range(len(world.members))
    lanes = [world.adapter(seed, place) for place in places]
    total = sum(len(member.train) for member in world.members)
    parts = tuple(Part(len(m.train) / total, lane) for m, lane in zip(world.members, lanes, strict=True))
    summed = RULE.compose([(part.share, part.state) for part in parts])
    routing = Composition("routing", parts)
    return {
        "base": world.losses(None),
        "together": world.losses(world.adapter(seed, *places)),
        "sum": world.losses(RULE.adapter(summed, fresh_adapter(world.model, seed))),
        "ensemble": world.losses(Composition("ensemble", parts)),
        "routing": world.losses(routing),
        "own_lane": [world.loss(place, lane) for place, lane in enumerate(lanes)],
        "routed_home_percent": list(_home(world, routing)),
    }


def _home(world: World, routing: Composition) -> Iterator[float]:
    for place, member in enumerate(world.members):
        examples = [encode(world.model.tokenizer, record, _LENGTH) for record in member.dev[:_LIMIT]]
        chosen = route(world.model, routing, [example.tokens[: example.prompt_length] for example in examples])
        yield 100 * sum(part == place for part in chosen) / len(chosen)


def table(world: World, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """A row for each organisation and one for their mean."""
    found = [measure(world, seed) for seed in seeds]
    rows = []
    for place, member in enumerate(world.members):
        rows.append(_row(member.name, [{name: values[place] for name, values in one.items()} for one in found]))
    rows.append(_row("mean", [{name: fmean(values) for name, values in one.items()} for one in found]))
    return rows


def _row(name: str, seeds: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    means = {figure: fmean(one[figure] for one in seeds) for figure in seeds[0]}
    spread = (
        max(stdev(one[f] for one in seeds) for f in means if f != "routed_home_percent") if len(seeds) > 1 else None
    )
    return {"held_out_records_of": name, **means, "largest_spread": spread}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="a folder with one data set per organisation")
    parser.add_argument("--base", action="append", default=[], help="a base model besides the embedded one")
    parser.add_argument("--steps", type=int, default=50, help="steps of an organisation in a round, on foedus-tiny")
    parser.add_argument("--small-steps", type=int, default=60, help="the same on the other bases")
    parser.add_argument("--seeds", type=int, default=len(_SEEDS))
    options = parser.parse_args()
    config = RunConfig(data=str(Path(options.data).absolute()), quantisation="none")
    members = read_data(config).organisations
    figures: dict[str, Any] = {
        "seeds": options.seeds,
        "rank": config.rank,
        "tokens_a_row": _LENGTH,
        "held_out_records_each_at_most": _LIMIT,
    }
    for base in (config.base, *options.base):
        steps = options.steps if base == config.base else options.small_steps
        model = load_base(base, config.quantisation, config.rank, config.alpha)
        rows = table(World(model, members, steps), _SEEDS[: options.seeds])
        name = f"{Path(base).name}, {_ROUNDS} rounds of {steps} steps"
        figures[name] = rows
        sys.stdout.write(f"{name}\n{report.table(tuple(rows[0]), [tuple(row.values()) for row in rows])}\n\n")
        report.write("compositions", figures, "python -m benchmarks.compositions --data DATA --base BASE", _SEEDS[0])


if __name__ == "__main__":
    main()
