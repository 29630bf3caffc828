"""The character n-gram that the embedded base is measured against."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.ngram import END, CharacterNgram, Counts

PAIRS = [("What is one and one?", "two"), ("What is two and two?", "four"), ("Say two.", "two")]
ALPHABET = sorted({c for prompt, answer in PAIRS for c in prompt + answer} | {"\x01", END})


@pytest.mark.parametrize("context", ["", "\x02What", "\x02Say two.\x01t", "zzz"])
def test_the_probabilities_of_all_known_characters_and_one_unknown_sum_to_one(context: str) -> None:
    model, seen = CharacterNgram(4).fit(PAIRS), Counts(4)
    total = sum(model.probability(c, context, seen) for c in [*ALPHABET, "\u2603"])
    assert total == pytest.approx(1.0)


def test_they_still_do_when_the_prompt_is_counted_in() -> None:
    model, seen = CharacterNgram(4).fit(PAIRS), Counts(4)
    text = "\x02two and four\x01"
    for i in range(1, len(text)):
        seen.read(text, i, model._trained.grams)
    assert sum(model.probability(c, text, seen) for c in [*ALPHABET, "\u2603"]) == pytest.approx(1.0)


def test_a_word_of_the_prompt_is_cheaper_in_the_answer() -> None:
    model = CharacterNgram(6).fit(PAIRS)
    assert model.nats("name it quorvex", "quorvex") < model.nats("name it, please", "quorvex") - 2.0


def test_a_seen_answer_is_cheaper_than_an_unseen_one() -> None:
    model = CharacterNgram(6).fit(PAIRS)
    assert model.nats(PAIRS[0][0], "two") < model.nats(PAIRS[0][0], "owt")


@given(st.text(max_size=20), st.text(min_size=1, max_size=20))
def test_any_text_has_a_finite_positive_cost(prompt: str, answer: str) -> None:
    nats = CharacterNgram(3).fit(PAIRS).nats(prompt, answer)
    assert 0.0 < nats < math.inf
