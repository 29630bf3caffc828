"""What the served model answers to a few questions after each round, for people who follow a run.

The questions are of the shared validation set; in a simulation without one, of what its organisations hold out. They
pass the model together, and their number, length and share of a run's time are bounded: a round must not wait for what
decides nothing.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from core.adapter import AdapterState
from core.aggregation import RULES, Rule
from core.composition import Composition
from core.config import RunConfig
from core.storage.events import EventLog
from llm.batches import encode_prompt
from llm.evaluate import greedy_answers
from llm.model import Model
from llm.records import Collection, Record

MOST_TOKENS = 24
"""Of an answer: a sentence."""
MOST_SHARE = 0.05
"""Of the time since the run began or was resumed: a round is passed over while its answers would take more."""
_LONGEST = 300
"""Characters of a question, and of what is shown of the record's own answer."""


@dataclass
class SampleAnswers:
    """Writes an event with the answers; what is asked, by the domain or organisation that it is of."""

    model: Model
    fresh: AdapterState
    rule: Rule
    questions: Mapping[str, Record]
    events: EventLog
    clock: Callable[[], float] = time.monotonic
    _spent: float = field(default=0.0, init=False)
    """Seconds, of all rounds so far."""

    def __post_init__(self) -> None:
        """Begin to count the time."""
        self._began = self.clock()

    @classmethod
    def of(
        cls, config: RunConfig, model: Model, fresh: AdapterState, data: Collection, events: EventLog
    ) -> "SampleAnswers":
        """Asking the first short question of as many domains, or organisations, as `sample-answers` says."""
        by_name: dict[str, list[Record]] = {}
        for record in data.validation:
            by_name.setdefault(record.domain or "all", []).append(record)
        by_name = by_name or {organisation.name: [*organisation.dev] for organisation in data.organisations}
        room = (model.context_length or math.inf) - MOST_TOKENS

        def fits(record: Record) -> bool:
            return (
                record.asks_alone
                and len(text := record.prompt[0].content) <= _LONGEST
                and len(encode_prompt(model.tokenizer, text)) <= room
            )

        # Looked at only as far as needed: a validation set may have thousands of records.
        first = ((name, next(filter(fits, records), None)) for name, records in by_name.items())
        asked = dict(islice(((name, record) for name, record in first if record), config.sample_answers))
        return cls(model, fresh, RULES[config.aggregation], asked, events)

    def tell(self, round: int, served: Composition) -> None:
        """Write what is answered after a round, unless that takes too much; before the first, what the base answers."""
        began = self.clock()
        if not self.questions or self._spent > MOST_SHARE * (began - self._began):
            return
        if round == 1:
            self.events.write("answered", round=0, aggregate=None, answers=self._answers(None))
        adapters = served.map(lambda state: self.rule.adapter(state, self.fresh))
        self.events.write("answered", round=round, aggregate=served.digest, answers=self._answers(adapters))
        self._spent += self.clock() - began

    def _answers(self, adapters: Composition | None) -> list[dict[str, Any]]:
        prompts = [record.prompt[0].content for record in self.questions.values()]
        answers = greedy_answers(self.model, adapters, prompts, MOST_TOKENS)
        return [
            {
                "of": name,
                "question": record.prompt[0].content,
                "expected": record.answer[:_LONGEST],
                "answer": self.model.tokenizer.decode(tokens, skip_special_tokens=True).strip(),
            }
            for (name, record), tokens in zip(self.questions.items(), answers, strict=True)
        ]
