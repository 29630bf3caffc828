"""What organisations learn together by each aggregation rule and wire form, and each alone, on a base that speaks.

Four organisations teach the default base their made-up facts in a few rounds, by the command line and in one process;
every rule has the same rank, steps and seeds, once with the mean of the updates (η = 1) and once with the default η,
sent as fp32; so has the default rule in every other wire form, and once each organisation learns in a lane of its own.
Loss is that of the run's own report, on each organisation's held-out records; a fact counts as said when the greedy
answer to a held-out question holds it. Everything measured lies in WORK: a run that stops goes on from there.

    python -m benchmarks.rules --work WORK [--base BASE] [--seeds N]
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import assets
from benchmarks import report
from benchmarks.command_line import foedus
from benchmarks.speaking import SEEDS, Question, once, own_answers, questions
from core.aggregation import RULES
from core.config import RunConfig
from core.intervals import MeanInterval
from core.storage.state_folder import State
from core.wire import DOWN
from provenance.served import subject

# A stack of four organisations' updates in three rounds has rank 192, which is as wide as the base's narrowest layer.
SHAPE = (
    *("--backend", "inline", "--rounds", "3"),
    *("--set", "rank=16", "--set", "local-epochs=2", "--set", "participation=all"),
)
DEFAULT = RunConfig().aggregation


def _of_rule(rule: str) -> dict[str, tuple[str, ...]]:
    return {
        f"{rule}, η {rate:g}": ("--aggregation", rule, "--set", f"server-rate={rate:g}", "--set", "wire=fp32")
        for rate in (1.0, RunConfig().server_rate)
    }


CASES: Mapping[str, tuple[str, ...]] = {
    **_of_rule(DEFAULT),
    **{f"{DEFAULT}, {wire}": ("--set", f"wire={wire}") for wire in DOWN if wire not in {"fp32", "bf16"}},
    "each alone, routing": ("--lane-size", "1", "--composition", "routing", "--set", "wire=fp32"),
    **{case: options for rule in RULES if rule != DEFAULT for case, options in _of_rule(rule).items()},
}


def measured(folder: Path, base: str, options: Sequence[str], seed: int, asked: Sequence[Question]) -> dict[str, float]:
    """The change of the mean loss and the facts said, both in percent, of one federation."""
    state = str(folder / "state")

    def trained() -> dict[str, Any]:
        done = foedus("run", "--state", state, "--base", base, "--seed", str(seed), *SHAPE, *options)
        foedus("chain", "stop", "--state", state)  # the chain's daemon outlives the command that started it
        return done

    def said() -> float:
        found = subject(State(Path(state)).existing(""))
        answers = own_answers(found, [question.prompt for question in asked])
        return 100 * fmean(question.said_in(text) for question, text in zip(asked, answers, strict=True))

    run: dict[str, Any] = once(folder / "run.json", trained)
    base_loss, final = (fmean(run[name].values()) for name in ("base_loss", "final_loss"))
    return {
        "base loss": base_loss,
        "final loss": final,
        "change percent": 100 * (final / base_loss - 1),
        "facts said percent": once(folder / "said.json", said),
    }


def row(case: str, seeds: Sequence[Mapping[str, float]]) -> dict[str, str]:
    """A case's figures over the seeds, each with its interval."""
    return {"rule": case, **{name: str(MeanInterval.of([one[name] for one in seeds])) for name in seeds[0]}}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="a folder for the runs")
    parser.add_argument("--base", default=RunConfig().base)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    asked, found = questions(assets.samples(), 0), dict[str, list[dict[str, float]]]()
    for seed in SEEDS[: options.seeds]:
        for index, (case, of_case) in enumerate(CASES.items()):
            folder = options.work.absolute() / f"{seed}-{index}"
            found.setdefault(case, []).append(measured(folder, options.base, of_case, seed, asked))
        # After every seed: a run that stops leaves its figures behind.
        rows = [row(case, seeds) for case, seeds in found.items()]
        figures = {"seeds": len(found[case]), "questions": len(asked), "rules": rows}
        report.write("rules", figures, "python -m benchmarks.rules --work WORK", SEEDS[0])
    report.print_table(tuple(rows[0]), [tuple(one.values()) for one in rows])


if __name__ == "__main__":
    main()
