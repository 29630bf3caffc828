"""Made-up traces, for what shows them."""

import math
from collections.abc import Sequence
from dataclasses import replace

from core.canonical import Address, Digest
from provenance.trace import ResponseScores, TokenScores, TokenTrace

TEXTS = ("Take", " two", " tab", "lets", " of", " <script>alert(1)</script>", "\n", " &", " mil", "k", ".", "")


def names(count: int = 4) -> dict[Address, str]:
    """Organisations and what they are called."""
    known = ("medical", "financial", "coding", "mathematical")
    return {Address(f"0x{k + 1:040x}"): known[k] if k < len(known) else f"organisation {k:04}" for k in range(count)}


def trace(count: int = 4, texts: Sequence[str] = TEXTS) -> TokenTrace:
    """A response in which the k-th token is taught by the organisation k mod `count`, the more the later it comes."""
    organisations, tokens = tuple(names(count)), []
    for index, text in enumerate(texts):
        gain = 3 * (index + 1) / len(texts)
        scores = [0.02 * math.sin(7 * index + 3 * k) for k in range(count)]
        scores[index % count] += gain
        tokens.append(TokenScores(text, index, -0.5, tuple(scores), -0.5 - gain, gain - sum(scores)))
    (whole,) = TokenTrace("", Digest(""), "", organisations, "", tuple(tokens), _NONE, 0.0).spans([(0, len(tokens))])
    best = organisations[max(range(count), key=whole.scores.__getitem__)]
    response = ResponseScores(whole.scores, _familiar(whole.scores), whole.base, whole.residual, 0.875, best, False)
    prompt = "How many <b>tablets</b>?\nOf 70 mg"
    return TokenTrace(
        "spring", Digest("0x" + "11" * 32), "gradient", organisations, prompt, tuple(tokens), response, 0.25
    )


def abstaining(found: TokenTrace) -> TokenTrace:
    """The same trace without a verdict."""
    return replace(found, response=replace(found.response, verdict=None, confidence=0.25))


def _familiar(scores: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(score / 10 for score in scores)


_NONE = ResponseScores((), (), 0.0, None, 0.0, None, False)
