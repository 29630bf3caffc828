"""Canaries: a made-up name with a secret of two characters drawn at random, which no other record mentions."""

import random
import string
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import torch

from core.adapter import AdapterState
from llm.batches import Example, collate, encode
from llm.determinism import reproducible
from llm.loss import answer_logits
from llm.model import Model
from llm.records import Record
from unlearning import metrics

COUNT = 50
_LETTERS = 20
_SYLLABLES = ("ba", "do", "fi", "gu", "ke", "lo", "mi", "nu", "pa", "re", "so", "tu", "va", "zi")
_TOGETHER = 5
"""Canaries a forward pass."""


@dataclass(frozen=True)
class Canary:
    """A name and its secret of two letters."""

    name: str
    secret: str

    @property
    def record(self) -> Record:
        """The training record: plain text, since a chat template would be four fifths of it."""
        return Record((), f"{self.name} {self.secret}")


def draw(model: Model, source: random.Random) -> tuple[Canary, ...]:
    """COUNT canaries with names of their own."""
    known = letters(model)
    names = sorted({"".join(parts).title() for parts in product(_SYLLABLES, repeat=3)})
    return tuple(Canary(name, "".join(source.choices(known, k=2))) for name in source.sample(names, COUNT))


@lru_cache(maxsize=1)
def letters(model: Model) -> str:
    """Characters that are one token each wherever they stand, so that a secret is two tokens."""

    def length(one: str, other: str) -> int:
        return len(encode(model.tokenizer, Canary("Zi", one + other).record, 128))

    alphabet = string.ascii_uppercase + string.digits
    apart = max(length(one, other) for one, other in product(alphabet, repeat=2))
    kept = ""
    for letter in alphabet:
        if all(length(a, b) == apart for other in kept + letter for a, b in ((letter, other), (other, letter))):
            kept += letter
    return kept[:_LETTERS]


def exposures(model: Model, adapter: AdapterState, canaries: Sequence[Canary]) -> list[float]:
    """The exposure of each, in bits, among all pairs of letters."""
    known = letters(model)
    model.set_adapter(adapter)
    found: list[float] = []
    with reproducible(model.device, 0), torch.no_grad():
        for first in range(0, len(canaries), _TOGETHER):
            some = canaries[first : first + _TOGETHER]
            found += map(metrics.exposure, *_losses(model, some, known))
    return found


def _losses(model: Model, canaries: Sequence[Canary], known: str) -> tuple[list[float], list[list[float]]]:
    """−log p of each canary's secret, and of all pairs of letters: one sequence for each first letter."""
    doubled = [encode(model.tokenizer, Canary("Zi", 2 * letter).record, 128).tokens for letter in known]
    first, second = ([tokens[index] for tokens in doubled] for index in (-3, -2))
    examples = []
    for canary in canaries:
        start = encode(model.tokenizer, canary.record, 128).tokens[:-3]
        examples += [Example((*start, *tokens[-3:-1]), len(start)) for tokens in doubled]
    logits, _ = answer_logits(model, collate(examples, [(i,) for i in range(len(examples))]).to(model.device))
    # One sequence for each first letter gives the second letter's distribution: 20 passes score all 400 pairs.
    log_p = logits.log_softmax(-1).view(len(canaries), len(known), 2, -1).double()
    pairs = -(log_p[:, 0, 0, first, None] + log_p[:, :, 1, second])
    own = [pairs[i, known.index(c.secret[0]), known.index(c.secret[1])].item() for i, c in enumerate(canaries)]
    return own, pairs.flatten(1).tolist()
