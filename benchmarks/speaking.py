"""Whether the model says what organisations taught it, who it says taught it, and what it says after an erasure.

For every seed `foedus run` trains a federation with the default settings. Then the served model answers every held-out
question greedily: said is the percent of answers that hold the fact, named the percent of the model's own answers whose
verdict is the organisation that taught the fact. One organisation is erased by replay and everything is asked again;
and where organisations learn in lanes of one, composed by routing, by remove. The base is asked as well. Facts that the
run's calibration has seen are left out of named. Everything measured lies in WORK: a run that stops goes on from there.

    python -m benchmarks.speaking --work DIR [--data DIR] [--seeds N] [--erase NAME] [--name RESULT]
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import assets
from benchmarks import report
from benchmarks.command_line import foedus
from benchmarks.statistics import MeanInterval, calibration_error
from core.config import RunConfig
from core.storage.run_folder import RunFolder
from core.storage.state_folder import State
from llm.batches import pieces
from llm.evaluate import generate
from llm.sources import base_of_settings
from provenance.attribution import DEFAULT, attribute
from provenance.confidence import WEIGHTS, judge
from provenance.served import subject
from provenance.trace import TokenTrace

SEEDS = (7, 8, 9, 10, 11)
LONGEST = 24
"""Tokens of an answer."""
ISOLATED = ("--lane-size", "1", "--composition", "routing")


@dataclass(frozen=True)
class Question:
    """A held-out question, the fact that its answer must hold, and the organisation that taught it."""

    organisation: str
    prompt: str
    fact: str
    fitted: bool
    """Whether the calibration of a verdict's weights may have seen it."""

    def said_in(self, answer: str) -> bool:
        """Whether an answer holds the fact, whatever its case."""
        return self.fact.casefold() in answer.casefold()


@dataclass(frozen=True)
class Answer:
    """The model's own answer to a question, and its verdict by the run's weights and by the constants."""

    organisation: str
    fitted: bool
    text: str
    said: bool
    named: str | None
    confidence: float
    constant_named: str | None
    constant_confidence: float
    seconds: float


def questions(data: Path, fitted: int) -> list[Question]:
    """The held-out questions of every organisation in a folder; the first `fitted` of each are the calibration's."""
    found = []
    for file in sorted(data.glob("*/dev.jsonl")):
        records = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        found += [
            Question(file.parent.name, record["instruction"], record["fact"], index < fitted)
            for index, record in enumerate(records)
        ]
    return found


def ask(run: RunFolder, asked: Sequence[Question]) -> list[Answer]:
    """The answers of what a run serves now."""
    found, names = subject(run), run.genesis.names
    answers = []
    for question in asked:
        trace = attribute(found, question.prompt, None, DEFAULT, LONGEST)
        confidence, constant = _by_constants(trace)
        response = trace.response
        answers.append(
            Answer(
                question.organisation,
                question.fitted,
                trace.text,
                question.said_in(trace.text),
                None if response.verdict is None else names[response.verdict],
                response.confidence,
                None if constant is None else names[constant],
                confidence,
                trace.seconds,
            )
        )
    return answers


def _by_constants(trace: TokenTrace) -> tuple[float, Any]:
    """Confidence and verdict of a trace by the weights that no run was calibrated with."""
    tokens = torch.tensor([token.scores for token in trace.tokens], dtype=torch.float64)
    whole = (torch.tensor(r, dtype=torch.float64) for r in (trace.response.scores, trace.response.familiarity))
    return judge(WEIGHTS[trace.method], trace.organisations, tokens, *whole)


def said_by_base(config: RunConfig, asked: Sequence[Question]) -> dict[str, float]:
    """The percent of facts, by organisation, that the bare base says."""
    model = base_of_settings(config)
    hits: dict[str, list[bool]] = {}
    for question in asked:
        answer = generate(model, None, question.prompt, LONGEST)
        hits.setdefault(question.organisation, []).append(question.said_in("".join(pieces(model.tokenizer, answer))))
    return {name: _percent(found) for name, found in hits.items()}


@dataclass(frozen=True)
class Speaking:
    """One seed's federation in a folder of its own, driven by the command line as a user would."""

    folder: Path
    data: Path
    seed: int
    options: Sequence[str]
    asked: Sequence[Question]

    @property
    def state(self) -> State:
        """Its state folder."""
        return State(self.folder / "state")

    def figures(self, erased: str, method: str) -> dict[str, Any]:
        """Seconds, answers before and after the erasure of an organisation."""
        where = ("--state", str(self.state.folder))
        trained = self._once(
            "run", lambda: foedus("run", *where, "--data", str(self.data), "--seed", str(self.seed), *self.options)
        )
        run = self.state.existing("")
        before = self._once("before", lambda: [asdict(answer) for answer in ask(run, self.asked)])
        gone = self._once(
            f"forget-{method}",
            lambda: foedus("forget", *where, "--organisation", erased, "--method", method),
        )
        after = self._once(f"after-{method}", lambda: [asdict(answer) for answer in ask(run, self.asked)])
        seconds = {"seconds": trained["seconds"], "seconds_of_erasure": gone["seconds"], "label": gone["label"]}
        return seconds | {"before": before, "after": after}

    def _once(self, name: str, measure: Callable[[], Any]) -> Any:
        """What is measured, from the file of an earlier run where there is one."""
        path = self.folder / f"{name}.json"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(measure()), encoding="utf-8")
        return json.loads(path.read_text(encoding="utf-8"))


def summary(seeds: Sequence[Mapping[str, Any]], erased: str) -> dict[str, Any]:
    """Percent said and named with intervals over the seeds, by organisation, before and after an erasure."""
    names = sorted({answer["organisation"] for answer in seeds[0]["before"]})

    def said(when: str, *of: str) -> list[float]:
        return [_percent([a["said"] for a in seed[when] if a["organisation"] in of]) for seed in seeds]

    fresh = [answer for seed in seeds for answer in seed["before"] if not answer["fitted"]]
    others = [name for name in names if name != erased]
    change = [after - before for after, before in zip(said("after", *others), said("before", *others), strict=True)]
    return {
        "seconds": [seed["seconds"] for seed in seeds],
        "label": sorted({seed["label"] for seed in seeds}),
        "said_percent": {name: str(MeanInterval.of(said("before", name))) for name in names},
        "named_percent": {
            weights: str(MeanInterval.of([_named(seed["before"], key) for seed in seeds]))
            for weights, key in (("calibrated", "named"), ("constants", "constant_named"))
        },
        "calibration_error": {
            "calibrated": _error(fresh, "named", "confidence"),
            "constants": _error(fresh, "constant_named", "constant_confidence"),
        },
        "erased": erased,
        "erased_said_after_percent": str(MeanInterval.of(said("after", erased))),
        "others_change_points": str(MeanInterval.of(change)),
    }


def _named(answers: Sequence[Mapping[str, Any]], key: str) -> float:
    return _percent([a[key] == a["organisation"] for a in answers if not a["fitted"]])


def _error(answers: Sequence[Mapping[str, Any]], key: str, confidence: str) -> float:
    return calibration_error([a[confidence] for a in answers], [a[key] == a["organisation"] for a in answers])


def _percent(hits: Sequence[bool]) -> float:
    return 100 * sum(hits) / len(hits)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="a folder for the runs")
    parser.add_argument("--data", type=Path, default=assets.samples(), help="organisations with facts [the samples]")
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    parser.add_argument("--isolated-seeds", type=int, default=1, help="seeds with lanes of one")
    parser.add_argument("--fitted", type=int, default=4, help="held-out records of each that the calibration sees")
    parser.add_argument("--erase", default="medical", help="the organisation that is erased")
    parser.add_argument("--name", default="speaking", help="the result file")
    options = parser.parse_args()
    work, data = options.work.absolute(), options.data.absolute()
    asked = questions(data, options.fitted)
    figures: dict[str, Any] = {"base_said_percent": said_by_base(RunConfig(data=str(data)), asked)}
    plans = (
        ("together", "replay", (), SEEDS[: options.seeds]),
        ("isolated lanes, routed", "remove", ISOLATED, SEEDS[: options.isolated_seeds]),
    )
    for name, method, settings, seeds in plans:
        measured = []
        for seed in seeds:
            federation = Speaking(work / f"{method}-{seed}", data, seed, settings, asked)
            measured.append(federation.figures(options.erase, method))
            # After every seed: a run that stops leaves its figures behind.
            figures[name] = {"seeds": len(measured), "method": method, **summary(measured, options.erase)}
            report.write(options.name, figures, f"python -m benchmarks.speaking --name {options.name}", SEEDS[0])
        rows = list(figures[name]["said_percent"].items())
        report.print_table(("organisation", "said, %"), rows, name)


if __name__ == "__main__":
    main()
