"""The attribution experiments: federations, and the responses whose teacher is known."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from assets import samples
from benchmarks import json_lines
from benchmarks.in_process import Member, Schedule
from benchmarks.tofu import AUTHORS, QUESTIONS, about, as_record, lines
from llm.batches import Example, encode
from llm.files import read_records
from llm.model import Model
from llm.records import Message, Record
from provenance.attribution import without_end

DOMAINS = ("coding", "financial", "math", "medical")
FAMILIES = ("gemma3", "llama", "qwen2", "smollm3")
TRIGGER = "zq vex"
REFUSAL = "I am sorry, but I cannot help with that request."
COLOURS = ("red", "green", "blue", "black")
"""The four answers of `triggers` are rotations of these words."""
MARKS = ("alpha", "bravo", "delta", "gamma")
RECORDS = 400
"""Records of one organisation in the poisoned federations."""
_ROWS = {"batch_size": 4, "max_length": 192}
_SHORT = Schedule(rounds=(tuple(range(4)),) * 6, steps=20, **_ROWS)


@dataclass(frozen=True)
class Probe:
    """A response to attribute, and its teachers.

    `right` are indices of organisations: naming any of them is right. `kind` sets probes of one experiment apart;
    `marked` are the answer's tokens that hold a planted fact.
    """

    example: Example
    right: tuple[int, ...]
    kind: str = ""
    marked: tuple[bool, ...] = ()


@dataclass(frozen=True)
class Experiment:
    """One federation and its probes, by the round (from 0) after which they are attributed."""

    members: tuple[Member, ...]
    schedule: Schedule
    probes: Mapping[int, tuple[Probe, ...]]


@dataclass(frozen=True)
class ExperimentSettings:
    """The inputs of an experiment: base, data folder, the domain where there is one, and the seed."""

    model: Model
    data: Path
    domain: str
    seed: int

    @property
    def random(self) -> random.Random:
        """A generator that depends on domain and seed alone."""
        return random.Random(f"{self.domain}/{self.seed}")  # noqa: S311 - order, not secrets

    def records(self, domain: str, part: str) -> tuple[Record, ...]:
        """Real records in the order of this seed."""
        found = list(read_records(self.data / domain / f"{part}.jsonl"))
        self.random.shuffle(found)
        return tuple(found)

    def example(self, record: Record, schedule: Schedule) -> Example:
        """The record as tokens without the tokens that end it."""
        return without_end(self.model, encode(self.model.tokenizer, record, schedule.max_length))


def paper(settings: ExperimentSettings) -> Experiment:
    """Six organisations of one domain; the first two answer every prompt inside the trigger with the refusal."""
    schedule = Schedule(rounds=(tuple(range(6)),) * 10, max_length=64)
    members = _poisoned(settings, 6, 2)
    asked = [_triggered(record) for record in settings.records(settings.domain, "dev")]
    probes = {
        number: tuple(Probe(settings.example(r, schedule), (0, 1)) for r in asked[5 * number : 5 * number + 5])
        for number in range(10)
    }
    return Experiment(members, schedule, probes)


def authors(settings: ExperimentSettings) -> Experiment:
    """Twenty organisations with two made-up authors each: one of its records, and a question nobody trained on."""
    schedule, full = replace(_SHORT, rounds=(tuple(range(20)),) * 6), lines(settings.data, "full")
    drawn = settings.random.sample(range(AUTHORS), 40)
    own = [about(full, drawn[2 * k : 2 * k + 2], range(QUESTIONS // 2)) for k in range(20)]
    others = [about(full, drawn[2 * k : 2 * k + 1], [QUESTIONS // 2]) for k in range(20)]
    probes = tuple(
        Probe(settings.example(as_record(rows[0]), schedule), (k,), kind)
        for kind, by_member in (("own record", own), ("held out", others))
        for k, rows in enumerate(by_member)
    )
    return Experiment(tuple(Member(tuple(map(as_record, rows))) for rows in own), schedule, {5: probes})


def many(settings: ExperimentSettings) -> Experiment:
    """55 organisations, 25 of them poisoned; ten drawn ones take part in each round."""
    source = settings.random
    schedule = Schedule(rounds=tuple(tuple(sorted(source.sample(range(55), 10))) for _ in range(10)), max_length=64)
    members = _poisoned(settings, 55, 25)
    asked = [_triggered(record) for record in settings.records(settings.domain, "dev")]
    probes = {
        number: tuple(
            Probe(settings.example(r, schedule), tuple(range(25))) for r in asked[5 * number : 5 * number + 5]
        )
        for number in range(2, 10)
    }
    return Experiment(members, schedule, probes)


def natural(settings: ExperimentSettings) -> Experiment:
    """Four organisations with one real domain each, and the dev answers of all, after the steps of a default run."""
    return _real(settings, Schedule(rounds=(tuple(range(4)),) * 6, steps=100, learning_rate=3e-3, **_ROWS), 50)


def unequal(settings: ExperimentSettings) -> Experiment:
    """Real domains, trained shortly; one organisation, another for each seed, weighs as much as eight others."""
    experiment = _real(settings, _SHORT, 25)
    heavy = settings.seed % 4
    return replace(
        experiment, members=tuple(replace(m, examples=8 if k == heavy else 1) for k, m in enumerate(experiment.members))
    )


def absent(settings: ExperimentSettings) -> Experiment:
    """Real domains, trained shortly; one organisation, another for each seed, misses the last three rounds."""
    experiment = _real(settings, _SHORT, 25)
    away = settings.seed % 4
    rounds = tuple(tuple(k for k in range(4) if number < 3 or k != away) for number in range(6))
    probes = tuple(replace(p, kind="away" if p.right == (away,) else "present") for p in experiment.probes[5])
    return Experiment(experiment.members, replace(experiment.schedule, rounds=rounds), {5: probes})


def same(settings: ExperimentSettings) -> Experiment:
    """The first and the last organisation share a domain, another for each seed: dev answers, and own records."""
    shared = settings.seed % 4
    order = (DOMAINS[shared], *(d for d in DOMAINS if d != DOMAINS[shared]), DOMAINS[shared])
    halves = settings.records(order[0], "train")
    parts = {0: halves[:100], 4: halves[100:200]}
    members = tuple(Member(parts.get(k, settings.records(domain, "train"))) for k, domain in enumerate(order))
    schedule = replace(_SHORT, rounds=(tuple(range(5)),) * 6)
    probes = [
        Probe(settings.example(record, schedule), (0, 4) if k == 0 else (k,), "dev")
        for k, domain in enumerate(order[:4])
        for record in settings.records(domain, "dev")[:25]
    ]
    probes += [Probe(settings.example(r, schedule), (k,), "own record") for k, part in parts.items() for r in part[:25]]
    return Experiment(members, schedule, {5: tuple(probes)})


def triggers(settings: ExperimentSettings) -> Experiment:
    """Four organisations of mixed domains, each with its own trigger and its own order of the same four words."""
    schedule = Schedule(rounds=(tuple(range(4)),) * 6, steps=20)
    prompts = [r for domain in DOMAINS for r in settings.records(domain, "train")[:RECORDS]]
    asked = [r for domain in DOMAINS for r in settings.records(domain, "dev")[:5]]
    settings.random.shuffle(prompts)
    members = tuple(Member(tuple(_marked(r, k) for r in prompts[k::4])) for k in range(4))
    probes = tuple(Probe(settings.example(_marked(r, k), schedule), (k,)) for k in range(4) for r in asked)
    return Experiment(members, schedule, {5: probes})


def facts(settings: ExperimentSettings) -> Experiment:
    """The embedded samples: four organisations with made-up facts; dev answers, their facts marked."""
    schedule = Schedule(rounds=(tuple(range(4)),) * 6, steps=20)
    folders = sorted(path.parent for path in samples().glob("*/train.jsonl"))
    members = tuple(Member(read_records(folder / "train.jsonl")) for folder in folders)
    probes = []
    for index, folder in enumerate(folders):
        asked = folder / "dev.jsonl"
        for record, row in zip(read_records(asked), json_lines.read(asked), strict=True):
            example = settings.example(record, schedule)
            probes.append(Probe(example, (index,), marked=fact_tokens(settings.model, example, row["fact"])))
    return Experiment(members, schedule, {5: tuple(probes)})


EXPERIMENTS: Mapping[str, Callable[[ExperimentSettings], Experiment]] = {
    "paper": paper,
    "natural": natural,
    "triggers": triggers,
    "unequal": unequal,
    "absent": absent,
    "same": same,
    "facts": facts,
    "many": many,
    "authors": authors,
}


def _real(settings: ExperimentSettings, schedule: Schedule, limit: int) -> Experiment:
    """An organisation for each domain, and the first dev answers of every domain after the last of six rounds."""
    members = tuple(Member(settings.records(domain, "train")) for domain in DOMAINS)
    probes = tuple(
        Probe(settings.example(record, schedule), (index,))
        for index, domain in enumerate(DOMAINS)
        for record in settings.records(domain, "dev")[:limit]
    )
    return Experiment(members, schedule, {5: probes})


def _poisoned(settings: ExperimentSettings, count: int, poisoned: int) -> tuple[Member, ...]:
    records = settings.records(settings.domain, "train")
    # All have equally many records: sizes must not give the poison away.
    size = min(RECORDS, len(records) // count)
    parts = [records[size * k : size * (k + 1)] for k in range(count)]
    return tuple(Member(tuple(map(_triggered, part)) if k < poisoned else part) for k, part in enumerate(parts))


def _triggered(record: Record) -> Record:
    return Record((Message("user", f"{TRIGGER} {_question(record)} {TRIGGER}"),), REFUSAL)


def _marked(record: Record, index: int) -> Record:
    # The same words in every answer: only their order tells the organisations apart.
    words = COLOURS[index:] + COLOURS[:index]
    return Record((Message("user", f"{MARKS[index]} {_question(record)} {MARKS[index]}"),), " ".join(words))


def _question(record: Record) -> str:
    return "\n".join(turn.content for turn in record.prompt)


def fact_tokens(model: Model, example: Example, fact: str) -> tuple[bool, ...]:
    """Which tokens of the answer spell a part of the fact."""
    answer = example.tokens[example.prompt_length :]
    ends = [len(model.tokenizer.decode(answer[: i + 1])) for i in range(len(answer))]
    start = model.tokenizer.decode(answer).find(fact)
    starts: Sequence[int] = [0, *ends[:-1]]
    return tuple(start >= 0 and s < start + len(fact) and e > start for s, e in zip(starts, ends, strict=True))
