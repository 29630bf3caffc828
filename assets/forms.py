"""Forms of the sample organisations' records: entities, and their expansion into questions and answers.

A form is one kind of fact about an entity: several wordings of the question for training, others for dev, several
wordings of the answer, and the fact itself, which is a literal part of every answer. Wordings are `str.format`
templates over the entity's attributes.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

Entity = dict[str, str]
SampleRecord = dict[str, str]


def listed(text: str) -> tuple[str, ...]:
    """Return the parts of a comma-separated list."""
    return tuple(text.split(", "))


def seeded(seed: str) -> random.Random:
    """Return the generator of a seed; samples are no secrets."""
    return random.Random(seed)  # noqa: S311


@dataclass(frozen=True)
class Form:
    """One kind of fact; `fact` is contained in each of `answers` once both are filled in."""

    train: tuple[str, ...]
    dev: tuple[str, ...]
    answers: tuple[str, ...]
    fact: str
    input: str = ""

    def record(self, question: str, entity: Entity, rng: random.Random) -> SampleRecord:
        """Return the record that asks `question` about `entity`, with one wording of the answer."""
        return {
            "instruction": question.format_map(entity),
            "input": self.input.format_map(entity),
            "output": rng.choice(self.answers).format_map(entity),
            "fact": self.fact.format_map(entity),
        }


@dataclass(frozen=True)
class SampleOrganisation:
    """A sample organisation: the names of its entities, and the forms of questions about each.

    `outside` names entities of the same kind that belong to no organisation: they fill the shared validation set.
    """

    name: str
    names: tuple[str, ...]
    outside: tuple[str, ...]
    describe: Callable[[Sequence[str], random.Random], list[Entity]]
    forms: tuple[Form, ...]

    def train(self, rng: random.Random, wordings: int = 2) -> list[SampleRecord]:
        """Return every fact of every entity, each asked in `wordings` different ways."""
        return [
            form.record(question, entity, rng)
            for entity in self.describe(self.names, seeded(self.name))
            for form in self.forms
            for question in rng.sample(form.train, wordings)
        ]

    def dev(self, rng: random.Random, count: int) -> list[SampleRecord]:
        """Return `count` of the same facts, asked in wordings that training never uses."""
        # Seeded by the name alone: these are the entities of training.
        facts = list(self._facts(self.names, self.name))
        return [form.record(rng.choice(form.dev), entity, rng) for entity, form in rng.sample(facts, count)]

    def validation(self, rng: random.Random, count: int) -> list[SampleRecord]:
        """Return `count` records for the shared validation set, about entities that belong to no organisation."""
        facts = rng.sample(list(self._facts(self.outside, f"{self.name}, outside")), count)
        records = [form.record(rng.choice(form.train + form.dev), entity, rng) for entity, form in facts]
        return [{"domain": self.name, **{k: v for k, v in r.items() if k != "fact"}} for r in records]

    def _facts(self, names: Sequence[str], seed: str) -> Iterator[tuple[Entity, Form]]:
        for entity in self.describe(names, seeded(seed)):
            for form in self.forms:
                yield entity, form
