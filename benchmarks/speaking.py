"""Whether the model says what organisations taught it, who it says taught it, and what it says after an erasure.

For every seed `foedus run` trains a federation with the default settings. Then the served model answers every held-out
question greedily: said is the percent of answers that hold the fact, named the percent of the model's own answers whose
verdict is the organisation that taught the fact. One organisation is erased by replay and everything is asked again;
and where organisations learn in lanes of one, composed by routing, by remove. The base is asked as well. Facts that the
run's calibration has seen are left out of named. Runs lie in WORK; what they answered is kept in benchmarks/measured,
under the name of the result, and not measured again.

    python -m benchmarks.speaking --work DIR [--data DIR --name RESULT] [--seeds N] [--erase NAME]
"""

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import assets
from benchmarks import arguments, json_lines, report
from benchmarks.command_line import foedus
from benchmarks.statistics import calibration_error
from core.adapter import AdapterState
from core.canonical import Address, Digest
from core.config import RunConfig
from core.errors import UsageError
from core.intervals import MeanInterval
from core.storage import blobs
from core.storage.run_folder import RunFolder
from core.storage.state_folder import State
from llm.evaluate import greedy_answers
from llm.model import Model
from llm.records import Message, Record
from llm.sources import base_of_settings
from provenance.attribution import DEFAULT, answering, attribute
from provenance.calibrating import calibrate
from provenance.confidence import WEIGHTS, Weights, judge_again, weights_of
from provenance.ensemble import EnsembleSubject
from provenance.method import Subject
from provenance.served import subject
from provenance.trace import TokenTrace

SEEDS = (7, 8, 9, 10, 11)
SAMPLES = "speaking"
"""The result of the samples."""
LONGEST = 24
"""Tokens of an answer."""
ISOLATED = ("--lane-size", "1", "--composition", "routing", "--rounds", "10")
"""Who learns alone has its turn in every round: as many passes as those have that learn together."""


@dataclass(frozen=True)
class Question:
    """A held-out question, its answer and the fact in it, and the organisation that taught it."""

    organisation: str
    prompt: str
    answer: str
    fact: str
    fitted: bool
    """Whether the calibration of a verdict's weights may have seen it."""

    def said_in(self, answer: str) -> bool:
        """Whether an answer holds the fact, whatever its case."""
        return self.fact.casefold() in answer.casefold()


@dataclass(frozen=True)
class Answer:
    """The model's own answer to a question, and its verdict by calibrated weights and by the constants."""

    organisation: str
    fitted: bool
    text: str
    said: bool
    named: str | None
    confidence: float
    constant_named: str | None
    constant_confidence: float


def questions(data: Path, fitted: int) -> list[Question]:
    """The held-out questions of every organisation in a folder; the first `fitted` of each are the calibration's."""
    found = []
    for file in sorted(data.glob("*/dev.jsonl")):
        for index, record in enumerate(json_lines.read(file)):
            if missing := sorted({"instruction", "output", "fact"} - record.keys()):
                got = ", ".join(record)
                raise SystemExit(f"{file}:{index + 1}: expected {', '.join(missing)}, got {got}: give data with facts")
            said = record["instruction"], record["output"], record["fact"]
            found.append(Question(file.parent.name, *said, index < fitted))
    return found


def ask(run: RunFolder, asked: Sequence[Question]) -> list[Answer]:
    """The answers of what a run serves now."""
    found, genesis = subject(run), run.genesis
    published: dict[Address, list[Record]] = {}
    for question in asked:
        if question.fitted and (member := genesis.named(question.organisation).address) in found.organisations:
            record = Record((Message("user", question.prompt),), question.answer)
            published.setdefault(member, []).append(record)
    fitted = calibrate(found, genesis, published)
    constants = WEIGHTS[DEFAULT]
    weights = constants if fitted is None else weights_of(fitted)
    answers = []
    for question, text in zip(asked, own_answers(found, [question.prompt for question in asked]), strict=True):
        of = (question.organisation, question.fitted, text, question.said_in(text))
        if not text.strip():
            answers.append(Answer(*of, None, 0.0, None, 0.0))
            continue
        trace = attribute(found, question.prompt, text, DEFAULT)
        answers.append(Answer(*of, *_judged(trace, weights, genesis.names), *_judged(trace, constants, genesis.names)))
    return answers


def own_answers(found: Subject | EnsembleSubject, prompts: Sequence[str]) -> list[str]:
    """The greedy answers to prompts, those of one adapter together."""
    groups: dict[Digest, tuple[AdapterState, list[str]]] = {}
    for prompt in prompts:
        adapter = answering(found, prompt).adapter
        if not isinstance(adapter, AdapterState):
            raise UsageError(f"expected one adapter for an answer, got a {adapter.kind}")
        groups.setdefault(adapter.digest, (adapter, []))[1].append(prompt)
    answers: dict[str, str] = {}
    for adapter, some in groups.values():
        answers |= dict(zip(some, spoken(found.model, adapter, some), strict=True))
    return [answers[prompt] for prompt in prompts]


def spoken(model: Model, adapter: AdapterState | None, prompts: Sequence[str]) -> list[str]:
    """The greedy answers of one adapter, or of the bare base, as text."""
    answers = greedy_answers(model, adapter, prompts, LONGEST)
    return [model.tokenizer.decode(answer, skip_special_tokens=True).strip() for answer in answers]


def _judged(trace: TokenTrace, weights: Weights, names: Mapping[Address, str]) -> tuple[str | None, float]:
    """Verdict, by name, and confidence of a trace by some weights."""
    confidence, named = judge_again(weights, trace)
    return None if named is None else names[named], confidence


def said_by_base(config: RunConfig, asked: Sequence[Question]) -> dict[str, float]:
    """The percent of facts, by organisation, that the bare base says."""
    texts = spoken(base_of_settings(config), None, [question.prompt for question in asked])
    hits: dict[str, list[bool]] = {}
    for question, text in zip(asked, texts, strict=True):
        hits.setdefault(question.organisation, []).append(question.said_in(text))
    return {name: _percent(found) for name, found in hits.items()}


@dataclass(frozen=True)
class Speaking:
    """One seed's federation in a folder of its own, driven by the command line as a user would.

    What is measured of it is kept under the folder's name.
    """

    folder: Path
    data: Path
    seed: int
    options: Sequence[str]
    asked: Sequence[Question]

    def figures(self, result: str, erased: str, method: str) -> dict[str, Any]:
        """Seconds, answers, and those after the erasure of an organisation, where one is named."""
        key = self.folder.name
        found: dict[str, Any] = report.kept(result, key, self._trained)
        if erased:
            found |= report.kept(result, f"{key}-without-{erased}", partial(self._erased, erased, method))
        return found

    def _trained(self) -> dict[str, Any]:
        run, told = self._run()
        if self._forgotten.exists():
            raise SystemExit(f"{self.folder}: expected a run of which nobody is erased: give another --work")
        return {"seconds": told["seconds"], "before": [asdict(answer) for answer in ask(run, self.asked)]}

    def _erased(self, organisation: str, method: str) -> dict[str, Any]:
        run, _ = self._run()
        words = ("forget", "--state", str(self.folder / "state"), "--organisation", organisation, "--method", method)
        gone = once(self._forgotten, lambda: foedus(*words))
        after = [asdict(answer) for answer in ask(run, self.asked)]
        return {"seconds_of_erasure": gone["seconds"], "label": gone["label"], "after": after}

    @property
    def _forgotten(self) -> Path:
        """What the erasure told, once there was one."""
        return self.folder / "forget.json"

    def _run(self) -> tuple[RunFolder, dict[str, Any]]:
        return trained(self.folder, "--data", str(self.data), "--seed", str(self.seed), *self.options)


def trained(folder: Path, *options: str) -> tuple[RunFolder, dict[str, Any]]:
    """The run in a folder's `state`, by `foedus run` with options, made once; and what the command told.

    Ends the process where the folder has a run of other options.
    """
    state, asked = folder / "state", list(options)

    def train() -> dict[str, Any]:
        done = foedus("run", "--state", str(state), *options)
        foedus("chain", "stop", "--state", str(state))  # the chain's daemon outlives the command that started it
        return {"options": asked, **done}

    told: dict[str, Any] = once(folder / "run.json", train)
    if told.get("options") != asked:
        raise SystemExit(
            f"{folder}: expected the run of {asked}, got that of {told.get('options')}: give another --work"
        )
    return State(state).existing(""), told


def once(path: Path, measure: Callable[[], Any]) -> Any:
    """What is measured, from the file of an earlier run where there is one."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        blobs.write(path, json.dumps(measure()).encode())  # whole or not at all, whatever ends the process
    return report.loaded(path)


def timed_alone(state: Path, data: Path) -> dict[str, float]:
    """The seconds of `foedus run`, and how busy the machine was in the minute before."""
    load = os.getloadavg()[0]
    seconds = foedus("run", "--state", str(state), "--data", str(data), "--seed", str(SEEDS[0]))["seconds"]
    return {"seconds": seconds, "load_average_before": round(load, 2)}


def summary(seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Percent said and named with intervals over the seeds, and the calibration errors of all held-out answers."""
    names = sorted({answer["organisation"] for answer in seeds[0]["before"]})
    answers = [answer for seed in seeds for answer in seed["before"]]
    fresh = [answer for answer in answers if not answer["fitted"]]
    said = [answer for answer in fresh if answer["said"]]
    return {
        "answers": len(answers),
        "said": sum(answer["said"] for answer in answers),
        "said_and_not_fitted": len(said),
        "said_and_not_fitted_and_named": sum(answer["named"] == answer["organisation"] for answer in said),
        "seconds": _by_seed(seeds, "seconds"),
        "said_percent": {name: str(MeanInterval.of(_said(seeds, "before", name))) for name in names},
        "named_percent": {
            weights: str(MeanInterval.of([_named(seed["before"], key) for seed in seeds]))
            for weights, key in (("calibrated", "named"), ("constants", "constant_named"))
        },
        "calibration_error": {
            "calibrated": _error(fresh, "named", "confidence"),
            "constants": _error(fresh, "constant_named", "constant_confidence"),
        },
    }


def erasure(seeds: Sequence[Mapping[str, Any]], erased: str) -> dict[str, Any]:
    """What is still said of an erased organisation's facts, and no more of the others'; {} without."""
    if not seeds:
        return {}
    lost = [
        [
            a["said"] and not b["said"]
            for a, b in zip(seed["before"], seed["after"], strict=True)
            if a["organisation"] != erased
        ]
        for seed in seeds
    ]
    return {
        "erased": erased,
        "seeds_of_erasure": len(seeds),
        "label": _by_seed(seeds, "label"),
        "seconds_of_erasure": _by_seed(seeds, "seconds_of_erasure"),
        "erased_said_after_percent": str(MeanInterval.of(_said(seeds, "after", erased))),
        "others_said_no_more_percent": str(MeanInterval.of([_percent(hits) for hits in lost])),
    }


def _by_seed(seeds: Sequence[Mapping[str, Any]], figure: str) -> dict[str, Any]:
    return {f"seed {number}": seed[figure] for number, seed in zip(SEEDS, seeds, strict=False)}


def _said(seeds: Sequence[Mapping[str, Any]], when: str, *organisations: str) -> list[float]:
    return [_percent([a["said"] for a in seed[when] if a["organisation"] in organisations]) for seed in seeds]


def _named(answers: Sequence[Mapping[str, Any]], key: str) -> float:
    return _percent([a[key] == a["organisation"] for a in answers if not a["fitted"]])


def _error(answers: Sequence[Mapping[str, Any]], key: str, confidence: str) -> float:
    return calibration_error([a[confidence] for a in answers], [a[key] == a["organisation"] for a in answers])


def _percent(hits: Sequence[bool]) -> float:
    return 100 * sum(hits) / len(hits)


def given() -> tuple[argparse.Namespace, list[Question]]:
    """The options, and the questions that they ask; ends the process for those that cannot be measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=arguments.output, required=True, help="a folder for the runs")
    parser.add_argument(
        "--data", type=arguments.folder, default=assets.samples(), help="organisations with facts [the samples]"
    )
    parser.add_argument("--name", default=SAMPLES, help="the result, and the folder of benchmarks/measured")
    parser.add_argument("--seeds", type=arguments.count(most=len(SEEDS)), default=len(SEEDS))
    parser.add_argument(
        "--isolated-seeds", type=arguments.count(0, len(SEEDS)), default=1, help="seeds with lanes of one"
    )
    parser.add_argument("--alone", action="store_true", help="time a run first: on a machine with nothing else to do")
    parser.add_argument(
        "--fitted", type=arguments.count(0), default=4, help="held-out records of each that the calibration sees"
    )
    parser.add_argument("--erase", default="medical", help="the organisation that is erased")
    parser.add_argument(
        "--erasures",
        type=arguments.count(0, len(SEEDS)),
        default=len(SEEDS),
        help="seeds of either kind in which it is",
    )
    options = parser.parse_args()
    if (options.data.absolute() == assets.samples()) != (options.name == SAMPLES):
        parser.error(f"expected --name other than {SAMPLES} with --data, and without it none, got {options.name}")
    asked = questions(options.data, options.fitted)
    if not (names := {question.organisation for question in asked}):
        parser.error(f"argument --data: expected NAME/dev.jsonl with facts, got none in {options.data}")
    if options.erasures and options.erase not in names:
        parser.error(f"argument --erase: expected one of {', '.join(sorted(names))}, got {options.erase}")
    if names != {question.organisation for question in asked if not question.fitted}:
        parser.error(f"argument --fitted: expected fewer than the held-out records of each, got {options.fitted}")
    return options, asked


def main() -> None:
    """Measure, print and write."""
    options, asked = given()
    work, data = options.work.absolute(), options.data.absolute()
    where = "" if options.name == SAMPLES else f" --data {options.data} --name {options.name}"
    command = f"python -m benchmarks.speaking --work DIR{where}"
    base = report.kept(options.name, "base", lambda: said_by_base(RunConfig(data=str(data)), asked))
    figures: dict[str, Any] = {"base_said_percent": base}
    if options.alone or report.known(options.name, "alone"):
        figures["alone"] = report.kept(options.name, "alone", lambda: timed_alone(work / "alone", data))
    plans = (
        ("together", "replay", (), SEEDS[: options.seeds]),
        ("isolated lanes, routed", "remove", ISOLATED, SEEDS[: options.isolated_seeds]),
    )
    for name, method, settings, seeds in plans:
        measured = []
        for index, seed in enumerate(seeds):
            federation = Speaking(work / f"{seed}-{name.split()[0]}", data, seed, settings, asked)
            erased = options.erase if index < options.erasures else ""
            measured.append(federation.figures(options.name, erased, method))
            # After every seed: a run that stops leaves its figures behind.
            after = erasure([one for one in measured if "after" in one], options.erase)
            figures[name] = {"seeds": len(measured), "method": method, **summary(measured), **after}
            report.write(options.name, figures, command, SEEDS[0], kept_as=options.name)
        if measured:
            report.print_table(("organisation", "said, %"), list(figures[name]["said_percent"].items()), name)


if __name__ == "__main__":
    main()
