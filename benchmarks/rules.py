"""What organisations learn together by each aggregation rule and wire form, and each alone, on a base that speaks.

Four organisations teach the default base their made-up facts in a few rounds, by the command line and in one process;
every rule has the same rank and steps, with the default η and, with the first seed, with the mean of the updates
(η = 1), sent as fp32; so has the default rule in every other wire form, and once each organisation learns in a lane of
its own. Loss is that of the run's own report, on each organisation's held-out records; a fact counts as said when the
greedy answer to a held-out question holds it. Runs lie in WORK: one that stops goes on from there. What a federation
gave lies in benchmarks/measured, and is not measured again.

    python -m benchmarks.rules --work WORK [--seeds N]
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import assets
from benchmarks import arguments, report
from benchmarks.speaking import SEEDS, Question, once, own_answers, questions, trained
from core.aggregation import RULES
from core.config import RunConfig
from core.intervals import MeanInterval
from core.wire import DOWN
from provenance.served import subject

# A stack of four organisations' updates in three rounds has rank 192, which is as wide as the base's narrowest layer.
SHAPE = (
    *("--backend", "inline", "--rounds", "3"),
    *("--set", "rank=16", "--set", "local-epochs=2", "--set", "participation=all"),
)
DEFAULT = RunConfig()


class Case(NamedTuple):
    """What a federation is run with; the default rule and rate where nothing else is said."""

    rule: str = DEFAULT.aggregation
    rate: float = DEFAULT.server_rate
    wire: str = "fp32"
    lanes: str = "one of all"

    @property
    def options(self) -> tuple[str, ...]:
        """Those of `foedus run`."""
        apart = ("--lane-size", "1", "--composition", "routing") if self == ALONE else ()
        settings = ("--set", f"server-rate={self.rate:g}", "--set", f"wire={self.wire}")
        return ("--aggregation", self.rule, *settings, *apart)

    @property
    def name(self) -> str:
        """What its file is called, behind the seed."""
        return f"{self.rule}-{self.rate:g}-{self.wire}{'-alone' if self == ALONE else ''}"


ALONE = Case(lanes="one each, routed")
CASES = (
    Case(rate=1.0),
    Case(),
    *(Case(wire=wire) for wire in DOWN if wire not in {"fp32", "bf16"}),
    ALONE,
    *(Case(rule, rate) for rule in RULES if rule != DEFAULT.aggregation for rate in (1.0, DEFAULT.server_rate)),
)
"""In the order in which they are measured."""


def cases(seeds: Sequence[int]) -> Iterator[tuple[int, Case]]:
    """Whatever is measured: what the default rate is worth shows with one seed."""
    for seed, case in product(seeds, CASES):
        if seed == seeds[0] or case.rate == DEFAULT.server_rate:
            yield seed, case


def measured(folder: Path, options: Sequence[str], seed: int, asked: Sequence[Question]) -> dict[str, float]:
    """The change of the mean loss and the facts said, both in percent, of one federation."""
    run, told = trained(folder, "--seed", str(seed), *SHAPE, *options)

    def said() -> float:
        answers = own_answers(subject(run), [question.prompt for question in asked])
        return 100 * fmean(question.said_in(text) for question, text in zip(asked, answers, strict=True))

    base_loss, final = (fmean(told[name].values()) for name in ("base_loss", "final_loss"))
    return {
        "base loss": base_loss,
        "final loss": final,
        "change percent": 100 * (final / base_loss - 1),
        "facts said percent": once(folder / "said.json", said),
    }


def row(case: Case, seeds: Sequence[Mapping[str, float]]) -> dict[str, str]:
    """A case's figures over the seeds, each with its interval."""
    what = {name: str(value) for name, value in case._asdict().items()} | {"seeds": str(len(seeds))}
    return what | {name: str(MeanInterval.of([one[name] for one in seeds])) for name in seeds[0]}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=arguments.output, required=True, help="a folder for the runs")
    parser.add_argument("--seeds", type=arguments.count(most=len(SEEDS)), default=3)
    options = parser.parse_args()
    asked, found = questions(assets.samples(), 0), dict[Case, list[dict[str, float]]]()
    for seed, case in cases(SEEDS[: options.seeds]):
        key = f"{seed}-{case.name}"
        measure = partial(measured, options.work.absolute() / key, case.options, seed, asked)
        found.setdefault(case, []).append(report.kept("rules", key, measure))
        # After every case: a run that stops leaves its figures behind.
        rows = [row(case, seeds) for case, seeds in found.items()]
        figures = {"questions": len(asked), "rules": rows}
        report.write("rules", figures, "python -m benchmarks.rules --work WORK", SEEDS[0], kept_as="rules")
    report.print_table(tuple(rows[0]), [tuple(one.values()) for one in rows])


if __name__ == "__main__":
    main()
