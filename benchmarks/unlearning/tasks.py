"""The unlearning tasks: federations, the organisation that is erased, and the records to look at afterwards.

The content of a task is the same for every seed; the seed decides the shared A and everybody's batches.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from assets import samples as sample_data
from benchmarks import json_lines
from benchmarks.in_process import Member, Schedule
from benchmarks.tofu import about, as_record, lines
from benchmarks.unlearning import canaries
from benchmarks.unlearning.canaries import Canary
from llm.batches import encode
from llm.files import read_records
from llm.model import Model
from llm.records import Record, parse_record

SHARDS = 4
_ASKED = 8
"""Questions about each of the forty authors, the first ones: training on all of them takes hours."""
_WRONG = 3
"""Wrong answers of a TOFU question that are measured, of five."""
_ROW, _CHARACTERS, _SHARD = 120, 120, 1300
"""Tokens of a row, characters of a text, and texts of an organisation. Rows hold texts whole: a prompt that is cut to
leave room for its label gives away the label's length."""
_LABELS = {"imdb": {0: "negative", 1: "positive"}, "tweeteval": {0: "negative", 2: "positive"}}


@dataclass(frozen=True)
class Truth:
    """A question with a right answer in the words of training, one in others, and wrong ones."""

    right: Record
    paraphrase: Record
    wrong: tuple[Record, ...]


@dataclass(frozen=True)
class ErasureTask:
    """A federation of which the member with index `erased` is erased.

    `sets` are records to look at: `forget` (of the erased organisation), `retain` (of the others), `unseen` (of the
    erased organisation's kind, but in nobody's training); for sentiment `unseen` and `others` are held-out texts of
    either kind.
    """

    members: tuple[Member, ...]
    erased: int
    schedule: Schedule
    sets: Mapping[str, tuple[Record, ...]]
    truths: Mapping[str, tuple[Truth, ...]] = field(default_factory=dict)
    canaries: tuple[Canary, ...] = ()

    @property
    def others(self) -> tuple[Record, ...]:
        """The records of the remaining members."""
        return tuple(r for index, m in enumerate(self.members) if index != self.erased for r in m.records)

    @property
    def without(self) -> Schedule:
        """The schedule in which the erased organisation never took part."""
        return replace(
            self.schedule,
            rounds=tuple(tuple(i for i in indices if i != self.erased) for indices in self.schedule.rounds),
        )


def samples(model: Model, _data: Path) -> ErasureTask:
    """The embedded samples: four organisations, the last with 50 canaries beside its records."""
    planted = canaries.draw(model, _source("canaries"))
    folders = sorted(path.parent for path in sample_data().glob("*/train.jsonl"))
    parts = [_drawn(model, read_records(folder / "train.jsonl"), 24) for folder in folders]
    unseen = _drawn(model, read_records(folders[-1] / "dev.jsonl"), 16)
    own = (*parts[-1], *(canary.record for canary in planted))
    members = (*(Member(part, len(part)) for part in parts[:-1]), Member(own, len(own)))
    retain = tuple(record for part in parts[:-1] for record in part[:12])
    schedule = Schedule((tuple(range(4)),) * 4, steps=32, batch_size=4, max_length=128, learning_rate=1e-2)
    sets = {"forget": parts[-1], "retain": retain, "unseen": unseen}
    return ErasureTask(members, 3, schedule, sets, canaries=planted)


def tofu(part: str, count: int, length: int) -> Callable[[Model, Path], ErasureTask]:
    """TOFU: one organisation has `count` records of the part to forget, three others half as many to retain each.

    Records are drawn from the shortest: rows of `length` tokens hold them whole, but for most of forget01.
    """

    def make(_model: Model, data: Path) -> ErasureTask:
        asked = {row["question"] for row in lines(data, part)}
        rows = sorted(lines(data, "forget10_perturbed"), key=lambda row: len(row["question"]) + len(row["answer"]))
        own = [row for row in rows if row["question"] in asked][: 2 * count]
        _source(part).shuffle(own)
        chosen = own[:count]
        unseen = [as_record(row) for row in rows if row not in chosen][:count]
        kept = sorted(lines(data, "retain_perturbed"), key=lambda row: len(row["question"]) + len(row["answer"]))
        kept = kept[: 3 * count // 2]
        shares = [chosen, *(kept[index::3] for index in range(3))]
        members = tuple(Member(tuple(as_record(row) for row in share), len(share)) for share in shares)
        truths = {
            "forget": _truths(chosen),
            "retain": _truths(kept[:24]),
            "authors": _truths(lines(data, "real_authors_perturbed")[:30]),
            "world": _truths(lines(data, "world_facts_perturbed")[:30]),
        }
        retain = tuple(as_record(row) for row in kept[:48])
        schedule = Schedule((tuple(range(4)),) * 4, steps=32, batch_size=4, max_length=length, learning_rate=1e-2)
        sets = {"forget": members[0].records, "retain": retain, "unseen": tuple(unseen)}
        return ErasureTask(members, 0, schedule, sets, truths)

    return make


def tofu_authors(data: Path) -> ErasureTask:
    """TOFU's share of a tenth: four of forty authors are one organisation's, and erased; three others have twelve each.

    For a base that speaks, with the product's settings. Nobody trains on the records of `unseen`, four authors more.
    """
    every = lines(data, "full")
    known = {row["question"]: row for part in ("forget10", "retain") for row in lines(data, f"{part}_perturbed")}

    def of(authors: Sequence[int]) -> list[dict[str, Any]]:
        return about(every, authors, range(_ASKED))

    shares = [of(range(196, 200)), *(of(range(first, 36, 3)) for first in range(3))]
    perturbed = [[known[row["question"]] for row in share if row["question"] in known] for share in shares]
    truths = {
        "forget": _truths(perturbed[0]),
        "retain": _truths([row for share in perturbed[1:] for row in share[:4]]),
        "authors": _truths(lines(data, "real_authors_perturbed")[:12]),
        "world": _truths(lines(data, "world_facts_perturbed")[:12]),
    }
    members = tuple(Member(tuple(as_record(row) for row in share), len(share)) for share in shares)
    sets = {
        "forget": members[0].records,
        "retain": tuple(record for member in members[1:] for record in member.records[:_ASKED]),
        "unseen": tuple(as_record(row) for row in of(range(192, 196))),
    }
    return ErasureTask(members, 0, Schedule.by_default((tuple(range(4)),) * 4, steps=16), sets, truths)


def sentiment(erased: str) -> Callable[[Model, Path], ErasureTask]:
    """Two organisations with texts of one kind, of which one is erased, and one with texts of the other kind."""

    def make(model: Model, data: Path) -> ErasureTask:
        other = next(kind for kind in _LABELS if kind != erased)
        own, others = _texts(model, data, erased, "train"), _texts(model, data, other, "train")
        shards = own[:_SHARD], own[_SHARD : 2 * _SHARD], others[:_SHARD]
        sets = {
            "forget": shards[0][:100],
            "retain": shards[1][:50] + shards[2][:50],
            "unseen": _texts(model, data, erased, "dev")[:360],
            "others": _texts(model, data, other, "dev")[:360],
        }
        schedule = Schedule((tuple(range(3)),) * 4, steps=24, batch_size=16, max_length=_ROW, learning_rate=6e-3)
        return ErasureTask(tuple(Member(shard) for shard in shards), 0, schedule, sets)

    return make


TASKS: Mapping[str, Callable[[Model, Path], ErasureTask]] = {
    "samples": samples,
    "tofu forget10": tofu("forget10", 64, 160),
    "tofu forget05": tofu("forget05", 64, 192),
    "tofu forget01": tofu("forget01", 40, 192),
    "samples, embedded base": samples,
    "sentiment, tweets": sentiment("tweeteval"),
    "sentiment, reviews": sentiment("imdb"),
}
EMBEDDED = frozenset({"samples, embedded base", "sentiment, tweets", "sentiment, reviews"})
"""Tasks on the embedded base, with the main methods only; the small base learns no sentiment in a few minutes."""


def _source(name: str) -> random.Random:
    return random.Random(name)  # noqa: S311 - order, not secrets


def _drawn(model: Model, records: Sequence[Record], count: int) -> tuple[Record, ...]:
    """`count` drawn records among those that a row of 128 tokens holds whole."""
    found = [record for record in records if len(encode(model.tokenizer, record, 512)) <= 128]
    _source("samples").shuffle(found)
    return tuple(found[:count])


def _truths(rows: Sequence[Mapping[str, Any]]) -> tuple[Truth, ...]:
    """The questions of a set; where it has no paraphrases, the answer itself stands in, as in TOFU."""
    found = []
    for row in rows:
        wrong = [parse_record({"question": row["question"], "answer": a}) for a in row["perturbed_answer"][:_WRONG]]
        paraphrase = as_record(row, "paraphrased_answer" if "paraphrased_answer" in row else "answer")
        found.append(Truth(as_record(row), paraphrase, tuple(wrong)))
    return tuple(found)


def _texts(model: Model, data: Path, kind: str, part: str) -> tuple[Record, ...]:
    """As many positive texts as negative ones, by turns: the end of each, where reviews conclude."""

    def labelled(text: str, label: str) -> Record:
        return parse_record({"text": text[-_CHARACTERS:], "label": label})

    rows = json_lines.read(data / "sentiment" / f"{kind}_{part}.jsonl")
    _source(kind).shuffle(rows)
    by_label = [
        [
            record
            for row in rows
            if row["label"] == label
            if len(encode(model.tokenizer, record := labelled(row["text"], word), 512)) < _ROW
        ]
        for label, word in _LABELS[kind].items()
    ]
    # The rarer label ends the alternation.
    return tuple(record for pair in zip(*by_label, strict=False) for record in pair)
