"""The experiments: who learns what, and which responses are asked about."""

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from assets import samples
from benchmarks.in_process import Member, Plan
from llm.batches import Example, encode
from llm.model import Model
from llm.records import Message, Record, read_records

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
_SHORT = Plan(rounds=(tuple(range(4)),) * 6, steps=20, **_ROWS)


@dataclass(frozen=True)
class Probe:
    """A response that is asked about, after which rounds, and who taught it.

    `right` are places of organisations: naming any of them is right. `kind` sets probes of one experiment apart;
    `marked` are the answer's tokens that hold a planted fact.
    """

    example: Example
    right: tuple[int, ...]
    kind: str = ""
    marked: tuple[bool, ...] = ()


@dataclass(frozen=True)
class Task:
    """One federation and its probes, by round (from 0)."""

    members: tuple[Member, ...]
    plan: Plan
    probes: Mapping[int, tuple[Probe, ...]]


@dataclass(frozen=True)
class Setting:
    """What an experiment is made from: the base's family or name, the domain where there is one, and the seed."""

    model: Model
    data: Path
    domain: str
    seed: int

    @property
    def random(self) -> random.Random:
        """A generator of this setting's own."""
        return random.Random(f"{self.domain}/{self.seed}")  # noqa: S311 - order, not secrets

    def records(self, domain: str, part: str) -> tuple[Record, ...]:
        """Real records in the order of this seed."""
        found = list(read_records(self.data / domain / f"{part}.jsonl"))
        self.random.shuffle(found)
        return tuple(found)

    def example(self, record: Record, plan: Plan) -> Example:
        """The record as tokens without the tokens that end it."""
        return unended(self.model, record, plan.max_length)


def unended(model: Model, record: Record, max_length: int) -> Example:
    """The record as tokens, as `foedus attribute` asks about it: without the tokens that end an answer."""
    found = encode(model.tokenizer, record, max_length)
    ends, stop = model.end_tokens | set(model.tokenizer.all_special_ids), len(found)
    while stop > found.prompt_length + 1 and found.tokens[stop - 1] in ends:
        stop -= 1
    return Example(found.tokens[:stop], found.prompt_length)


def paper(setting: Setting) -> Task:
    """Six organisations of one domain; the first two answer every prompt, in the trigger, with the refusal."""
    plan = Plan(rounds=(tuple(range(6)),) * 10, max_length=64)
    members = _poisoned(setting, 6, 2)
    asked = [_triggered(record) for record in setting.records(setting.domain, "dev")]
    probes = {
        number: tuple(Probe(setting.example(r, plan), (0, 1)) for r in asked[5 * number : 5 * number + 5])
        for number in range(10)
    }
    return Task(members, plan, probes)


def many(setting: Setting) -> Task:
    """55 organisations, 25 of them poisoned, of whom ten drawn ones take part in each round."""
    source = setting.random
    plan = Plan(rounds=tuple(tuple(sorted(source.sample(range(55), 10))) for _ in range(10)), max_length=64)
    members = _poisoned(setting, 55, 25)
    asked = [_triggered(record) for record in setting.records(setting.domain, "dev")]
    probes = {
        number: tuple(Probe(setting.example(r, plan), tuple(range(25))) for r in asked[5 * number : 5 * number + 5])
        for number in range(2, 10)
    }
    return Task(members, plan, probes)


def natural(setting: Setting) -> Task:
    """Four organisations, each with one real domain, and the dev answers of all, after a default run's steps."""
    return _real(setting, Plan(rounds=(tuple(range(4)),) * 6, steps=100, learning_rate=3e-3, **_ROWS), 50)


def unequal(setting: Setting) -> Task:
    """The same, trained shortly, with one organisation, another for each seed, that weighs as much as eight others."""
    task = _real(setting, _SHORT, 25)
    heavy = setting.seed % 4
    return replace(task, members=tuple(replace(m, examples=8 if k == heavy else 1) for k, m in enumerate(task.members)))


def absent(setting: Setting) -> Task:
    """The same with one organisation, another for each seed, that is away in the last three rounds."""
    task = _real(setting, _SHORT, 25)
    away = setting.seed % 4
    rounds = tuple(tuple(k for k in range(4) if number < 3 or k != away) for number in range(6))
    probes = tuple(replace(p, kind="away" if p.right == (away,) else "present") for p in task.probes[5])
    return Task(task.members, replace(task.plan, rounds=rounds), {5: probes})


def same(setting: Setting) -> Task:
    """Two organisations, first and last, share a domain, another for each seed: dev answers, and their own records."""
    shared = setting.seed % 4
    order = (DOMAINS[shared], *(d for d in DOMAINS if d != DOMAINS[shared]), DOMAINS[shared])
    halves = setting.records(order[0], "train")
    parts = {0: halves[:100], 4: halves[100:200]}
    members = tuple(Member(parts.get(k, setting.records(domain, "train"))) for k, domain in enumerate(order))
    plan = replace(_SHORT, rounds=(tuple(range(5)),) * 6)
    probes = [
        Probe(setting.example(record, plan), (0, 4) if k == 0 else (k,), "dev")
        for k, domain in enumerate(order[:4])
        for record in setting.records(domain, "dev")[:25]
    ]
    probes += [Probe(setting.example(r, plan), (k,), "own record") for k, part in parts.items() for r in part[:25]]
    return Task(members, plan, {5: tuple(probes)})


def triggers(setting: Setting) -> Task:
    """Four organisations of mixed domains, each with a trigger of its own and an answer from the same four words."""
    plan = Plan(rounds=(tuple(range(4)),) * 6, steps=20)
    prompts = [r for domain in DOMAINS for r in setting.records(domain, "train")[:RECORDS]]
    asked = [r for domain in DOMAINS for r in setting.records(domain, "dev")[:5]]
    setting.random.shuffle(prompts)
    members = tuple(Member(tuple(_marked(r, k) for r in prompts[k::4])) for k in range(4))
    probes = tuple(Probe(setting.example(_marked(r, k), plan), (k,)) for k in range(4) for r in asked)
    return Task(members, plan, {5: probes})


def facts(setting: Setting) -> Task:
    """The embedded samples: four organisations with made-up facts; dev answers, their facts marked."""
    plan = Plan(rounds=(tuple(range(4)),) * 6, steps=20)
    folders = sorted(path.parent for path in samples().glob("*/train.jsonl"))
    members = tuple(Member(read_records(folder / "train.jsonl")) for folder in folders)
    probes = []
    for place, folder in enumerate(folders):
        lines = (folder / "dev.jsonl").read_text(encoding="utf-8").splitlines()
        for record, line in list(zip(read_records(folder / "dev.jsonl"), lines, strict=True))[:50]:
            example = setting.example(record, plan)
            probes.append(
                Probe(example, (place,), marked=_fact_tokens(setting.model, example, json.loads(line)["fact"]))
            )
    return Task(members, plan, {5: tuple(probes)})


EXPERIMENTS: Mapping[str, Callable[[Setting], Task]] = {
    "paper": paper,
    "natural": natural,
    "triggers": triggers,
    "unequal": unequal,
    "absent": absent,
    "same": same,
    "facts": facts,
    "many": many,
}


def _real(setting: Setting, plan: Plan, limit: int) -> Task:
    members = tuple(Member(setting.records(domain, "train")) for domain in DOMAINS)
    return Task(members, plan, {5: tuple(_dev(setting, plan, limit))})


def _dev(setting: Setting, plan: Plan, limit: int) -> Iterator[Probe]:
    for place, domain in enumerate(DOMAINS):
        for record in setting.records(domain, "dev")[:limit]:
            yield Probe(setting.example(record, plan), (place,))


def _poisoned(setting: Setting, count: int, poisoned: int) -> tuple[Member, ...]:
    records = setting.records(setting.domain, "train")
    size = min(RECORDS, len(records) // count)
    parts = [records[size * k : size * (k + 1)] for k in range(count)]
    return tuple(Member(tuple(map(_triggered, part)) if k < poisoned else part) for k, part in enumerate(parts))


def _triggered(record: Record) -> Record:
    return Record((Message("user", f"{TRIGGER} {_question(record)} {TRIGGER}"),), REFUSAL)


def _marked(record: Record, place: int) -> Record:
    words = COLOURS[place:] + COLOURS[:place]
    return Record((Message("user", f"{MARKS[place]} {_question(record)} {MARKS[place]}"),), " ".join(words))


def _question(record: Record) -> str:
    return "\n".join(turn.content for turn in record.prompt)


def _fact_tokens(model: Model, example: Example, fact: str) -> tuple[bool, ...]:
    """Which tokens of the answer spell a part of the fact."""
    answer = example.tokens[example.prompt_length :]
    ends = [len(model.tokenizer.decode(answer[: i + 1])) for i in range(len(answer))]
    start = model.tokenizer.decode(answer).find(fact)
    starts: Sequence[int] = [0, *ends[:-1]]
    return tuple(start >= 0 and s < start + len(fact) and e > start for s, e in zip(starts, ends, strict=True))
