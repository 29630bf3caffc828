"""Forms of the sample organisations' records: entities with one fact each, and the questions that ask for it.

A form is one kind of fact: three wordings of the question for training, a fourth for dev, and one of the answer.
Wordings are `str.format` templates over the entity's `name`; the answer's also over its `fact`.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass

SampleRecord = dict[str, str]


def listed(text: str) -> tuple[str, ...]:
    """Return the parts of a comma-separated list."""
    return tuple(text.split(", "))


def seeded(seed: str) -> random.Random:
    """Return the generator of a seed; samples are no secrets."""
    return random.Random(seed)  # noqa: S311


@dataclass(frozen=True)
class Form:
    """One kind of fact, and the entities that it is known of, each with its fact.

    `outside` are entities of the same kind that belong to no organisation: they fill the shared validation set.
    """

    train: tuple[str, str, str]
    dev: str
    answer: str
    facts: Mapping[str, str]
    outside: Mapping[str, str]

    def record(self, question: str, name: str, fact: str) -> SampleRecord:
        """Return the record that asks `question` about the entity."""
        return {
            "instruction": question.format(name=name),
            "input": "",
            "output": self.answer.format(name=name, fact=fact),
            "fact": fact,
        }


@dataclass(frozen=True)
class SampleOrganisation:
    """A sample organisation: its name, and all that it knows."""

    name: str
    forms: tuple[Form, ...]

    def train(self) -> list[SampleRecord]:
        """Return every fact, asked in each wording of training."""
        return [
            form.record(question, *entity)
            for form in self.forms
            for entity in form.facts.items()
            for question in form.train
        ]

    def dev(self) -> list[SampleRecord]:
        """Return every fact, asked in the wording that training never uses."""
        return [form.record(form.dev, *entity) for form in self.forms for entity in form.facts.items()]

    def validation(self, rng: random.Random) -> list[SampleRecord]:
        """Return one record about each entity outside, in a wording that `rng` chooses."""
        records = [
            form.record(rng.choice((*form.train, form.dev)), *entity)
            for form in self.forms
            for entity in form.outside.items()
        ]
        # A planted fact is an organisation's: nobody attributes an answer of this set.
        return [{"domain": self.name, **{k: v for k, v in r.items() if k != "fact"}} for r in records]
