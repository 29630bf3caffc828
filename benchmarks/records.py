"""Which of its records taught an organisation's fact: the rank of a record that states it, and the time that it takes.

For every seed `foedus run` trains a federation with the default settings, in one process. Each organisation's held-out
questions are answered with their facts, and its own training records are scored for the fact's tokens, and for the
whole answer: is one that states the fact among the first three? Beside it stands the overlap of words (how many of the
answer's words a record has, rare words counting more), which finds what is written alike, whether it taught anything or
not. Seconds are those of scoring all of an organisation's records for one answer, against training on each once.

    python -m benchmarks.records --work DIR [--seeds N]
"""

import argparse
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

import assets
from benchmarks import arguments, json_lines, report
from benchmarks.provenance.experiments import fact_tokens
from benchmarks.speaking import SEEDS, Question, questions, trained
from benchmarks.timing import cpu_timed
from core.intervals import MeanInterval
from llm.batches import encode
from llm.files import read_records
from llm.records import Message, Record
from llm.served import Serving, serving
from llm.train import TrainConfig, steps_of, train
from provenance.records import record_scores

FIRST = 3
BY = ("fact", "answer", "words")
"""By what records are ranked: the tokens of the fact, the whole answer, words in common."""


def ranks(served: Serving, question: Question, records: Sequence[Record], facts: Sequence[str]) -> dict[str, int]:
    """The best rank, from 0, of a record that states the fact: by its tokens, by the answer, by words."""
    model, adapter = served.model, served.one_adapter("benchmarks.records")
    example = encode(model.tokenizer, Record((Message("user", question.prompt),), question.answer), 256)
    scores = record_scores(model, adapter, example, records, 256)
    said = torch.tensor(fact_tokens(model, example, question.fact))
    by = {"fact": scores[said].sum(0).tolist(), "answer": scores.sum(0).tolist(), "words": overlaps(question, records)}
    stating = [index for index, fact in enumerate(facts) if fact == question.fact]
    return {name: min(sum(other > found[index] for other in found) for index in stating) for name, found in by.items()}


def overlaps(question: Question, records: Sequence[Record]) -> list[float]:
    """For each of N records the sum of log(N / n_w) over the words w of question and answer in it; n_w have w."""
    texts = [_words(f"{record.prompt[-1].content} {record.answer}") for record in records]
    having = Counter(word for words in texts for word in words)
    asked = _words(f"{question.prompt} {question.answer}")
    return [sum(math.log(len(texts) / having[word]) for word in asked & words) for words in texts]


def times(served: Serving, question: Question, records: Sequence[Record]) -> float:
    """CPU seconds of scoring the records for an answer, relative to training on each of them once."""
    model, adapter = served.model, served.one_adapter("benchmarks.records")
    example = encode(model.tokenizer, Record((Message("user", question.prompt),), question.answer), 256)
    epoch = TrainConfig(steps_of(model, records, 1.0, 2, 256, len(records)), 2, 256)
    # The first call of either is not timed: both keep what the blocks below the adapter make of the records.
    train(model, records, adapter, epoch, 0)
    trained = cpu_timed(lambda: train(model, records, adapter, epoch, 0))[1]
    record_scores(model, adapter, example, records, 256)
    return cpu_timed(lambda: record_scores(model, adapter, example, records, 256))[1] / trained


def measured(work: Path, asked: Sequence[Question], seed: int) -> dict[str, Any]:
    """Percent of the facts of which a record that states it is among the first, and the mean of the times."""
    options = ("--backend", "inline", "--data", str(assets.samples()), "--seed", str(seed))
    served = serving(trained(work / f"{seed}", *options)[0])
    found, took = list[dict[str, int]](), list[float]()
    for name in sorted({question.organisation for question in asked}):
        file = assets.samples() / name / "train.jsonl"
        facts = [row["fact"] for row in json_lines.read(file)]
        records, own = read_records(file), [question for question in asked if question.organisation == name]
        found += [ranks(served, question, records, facts) for question in own]
        took.append(times(served, own[0], records))
    percent = {
        f"{by}, {first}": round(100 * fmean(rank[by] < first for rank in found), 2) for by in BY for first in (1, FIRST)
    }
    return {"percent": percent, "times_an_epoch": round(fmean(took), 4)}


def row(by: str, first: int, seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Percent of the facts, over the seeds, of which a record that states it is among the `first`."""
    percents = [seed["percent"][f"{by}, {first}"] for seed in seeds]
    return {"scored by": by, "among the first": first, "percent": str(MeanInterval.of(percents))}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=arguments.output, required=True, help="a folder for the runs")
    parser.add_argument("--seeds", type=arguments.count(most=len(SEEDS)), default=3)
    options = parser.parse_args()
    asked, seeds = questions(assets.samples(), 0), []
    for seed in SEEDS[: options.seeds]:
        seeds.append(report.kept("records", f"{seed}", partial(measured, options.work.absolute(), asked, seed)))
        # After every seed: a run that stops leaves its figures behind.
        rows = [row(by, first, seeds) for by in BY for first in (1, FIRST)]
        took = fmean(one["times_an_epoch"] for one in seeds)
        figures = {"seeds": len(seeds), "facts": len(asked), "times_an_epoch": took, "ranks": rows}
        report.write("records", figures, "python -m benchmarks.records --work DIR", SEEDS[0], kept_as="records")
    report.print_table(tuple(rows[0]), [tuple(found.values()) for found in rows])


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold()))


if __name__ == "__main__":
    main()
