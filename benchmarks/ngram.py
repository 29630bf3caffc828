"""A character n-gram model with interpolated Witten-Bell smoothing: the floor the embedded base must beat.

Decisions:

- The context runs from the prompt into the answer, so the model may use the question's last words.
- p(c | h) = (N(hc) + T(h) p(c | h')) / (N(h) + T(h)), where N counts occurrences, T counts the distinct
  characters seen after h and h' drops the oldest character (Witten & Bell 1991; Chen & Goodman 1999, eq. 17).
  The recursion ends in a uniform distribution over Unicode's assigned planes used by the training text plus one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

START, ANSWER, END = "\x02", "\x01", "\x03"


class CharacterNgram:
    """Counts of all n-grams up to `order` characters over prompts with their answers."""

    def __init__(self, order: int = 6) -> None:
        self.order = order
        self._counts: Counter[str] = Counter()
        self._followers: Counter[str] = Counter()
        self._totals: Counter[str] = Counter()
        self._uniform = 1.0

    def fit(self, pairs: Iterable[tuple[str, str]]) -> CharacterNgram:
        """Count (prompt, answer) pairs and return the model itself."""
        for prompt, answer in pairs:
            text = _framed(prompt, answer)
            for n in range(1, self.order + 1):
                self._counts.update(text[i : i + n] for i in range(1, len(text) - n + 1))
        for gram, count in self._counts.items():
            self._followers[gram[:-1]] += 1
            self._totals[gram[:-1]] += count
        self._uniform = 1.0 / (self._followers[""] + 1)
        return self

    def probability(self, character: str, context: str) -> float:
        """Return p(character | the last `order` - 1 characters of `context`)."""
        p = self._uniform
        width = min(self.order - 1, len(context))
        for n in range(width + 1):
            history = context[len(context) - n :]
            followers = self._followers.get(history, 0)
            if followers:
                count = self._counts.get(history + character, 0)
                p = (count + followers * p) / (self._totals[history] + followers)
        return p

    def nats(self, prompt: str, answer: str) -> float:
        """Return -log p(answer and its end | prompt) in nats."""
        text = _framed(prompt, answer)
        first = len(text) - len(answer) - 1
        return -sum(
            math.log(self.probability(text[i], text[max(0, i - self.order + 1) : i])) for i in range(first, len(text))
        )


def _framed(prompt: str, answer: str) -> str:
    return f"{START}{prompt}{ANSWER}{answer}{END}"
