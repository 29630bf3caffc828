"""TokenTrace: per token and organisation a score, with the base model's share, a residual, and a verdict.

Scores are nats of log probability, except where a method says otherwise (`protoken` and `direct-logit` score the
logit). The part that a method leaves unexplained stands in `residual`, never in the base model's share:

    log p(token) = base + Σ_k score_k + residual

As a file a trace is canonical JSON with organisations by address; its digest leaves out the seconds it took, so that
the same question asked twice has one digest.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Self

from core.canonical import Address, Digest, address, digest, from_json, to_json
from core.errors import FormatError
from core.parsing import finite, parsed


@dataclass(frozen=True)
class TokenScores:
    """One generated token: `scores` in the order of `TokenTrace.organisations`; `residual` None: the method has none.

    A span of tokens has the same form: text joined, numbers summed, `token` its first.
    """

    text: str
    token: int
    logprob: float
    scores: tuple[float, ...]
    base: float
    residual: float | None


@dataclass(frozen=True)
class ResponseScores:
    """The response as a whole: paths from one position to another included where the method has them.

    `familiarity` is how strongly each contribution answers to prompt and response, for its size, less the mean of all.
    `confidence` is the highest probability that an organisation taught the response, from scores and familiarity;
    `verdict` is that organisation, or None where the method abstains; `calibrated` whether the weights of both were
    fitted on this run (core/calibration.py), and are not the constants.
    """

    scores: tuple[float, ...]
    familiarity: tuple[float, ...]
    base: float
    residual: float | None
    confidence: float
    verdict: Address | None
    calibrated: bool


@dataclass(frozen=True)
class TokenTrace:
    """The attribution of one response. `aggregate` is the digest of the served adapter."""

    run: str
    aggregate: Digest
    method: str
    organisations: tuple[Address, ...]
    prompt: str
    tokens: tuple[TokenScores, ...]
    response: ResponseScores
    seconds: float

    @cached_property
    def digest(self) -> Digest:
        """SHA-256 under ``foedus/trace/v1`` of the canonical JSON without the seconds."""
        plain = asdict(self)
        del plain["seconds"]
        return digest("trace", to_json(plain))

    @property
    def text(self) -> str:
        """The response."""
        return "".join(token.text for token in self.tokens)

    def spans(self, ranges: Iterable[tuple[int, int]]) -> tuple[TokenScores, ...]:
        """The sums over token ranges [start, stop)."""
        return tuple(_sum(self.tokens[start:stop]) for start, stop in ranges)

    def words(self) -> tuple[TokenScores, ...]:
        """The sums over words: a token that starts with white space, or follows it, starts a word."""
        texts = [token.text for token in self.tokens]
        first = [True, *(text[-1:].isspace() for text in texts[:-1])]
        starts = [i for i, text in enumerate(texts) if first[i] or text[:1].isspace()]
        return self.spans(zip(starts, [*starts[1:], len(texts)], strict=True))

    def to_dict(self, names: Mapping[Address, str]) -> dict[str, Any]:
        """The JSON of `foedus attribute --json`: organisations by name."""
        response = self.response
        return {
            "run": self.run,
            "aggregate": self.aggregate,
            "method": self.method,
            "organisations": {names[a]: a for a in self.organisations},
            "prompt": self.prompt,
            "text": self.text,
            "tokens": [
                {
                    "text": token.text,
                    "token": token.token,
                    "logprob": token.logprob,
                    "scores": self._named(token.scores, names),
                    "base": token.base,
                    "residual": token.residual,
                }
                for token in self.tokens
            ],
            "response": {
                "scores": self._named(response.scores, names),
                "familiarity": self._named(response.familiarity, names),
                "base": response.base,
                "residual": response.residual,
                "confidence": response.confidence,
                "verdict": None if response.verdict is None else names[response.verdict],
                "calibrated": response.calibrated,
            },
            "residual": response.residual,
            "digest": self.digest,
            "seconds": self.seconds,
        }

    def to_bytes(self) -> bytes:
        """Canonical JSON with organisations by address; ``TokenTrace.from_bytes(t.to_bytes()) == t``."""
        return to_json(asdict(self))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Parse canonical JSON; raises FormatError."""
        return cls.from_plain(from_json(data))

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> Self:
        """Parse the plain data of `to_bytes`; raises FormatError."""
        trace = parsed(
            cls,
            data,
            {
                "tokens": lambda tokens: tuple(parsed(TokenScores, token, {"scores": _floats}) for token in tokens),
                "response": lambda whole: parsed(ResponseScores, whole, {"scores": _floats, "familiarity": _floats}),
                "organisations": lambda addresses: tuple(map(address, addresses)),
            },
            "trace",
        )
        response, organisations = trace.response, trace.organisations
        for residual in (response.residual, *(token.residual for token in trace.tokens)):
            finite("residual", 0.0 if residual is None else residual)
        rows = (response.scores, response.familiarity, *(token.scores for token in trace.tokens))
        if odd := [len(row) for row in rows if len(row) != len(organisations)]:
            raise FormatError(f"malformed trace: expected {len(organisations)} scores everywhere, got {odd[0]}")
        if response.verdict is not None and response.verdict not in organisations:
            raise FormatError(f"malformed trace: expected one of its organisations as verdict, got {response.verdict}")
        return trace

    def _named(self, scores: tuple[float, ...], names: Mapping[Address, str]) -> dict[str, float]:
        return {names[a]: score for a, score in zip(self.organisations, scores, strict=True)}


def _sum(tokens: tuple[TokenScores, ...]) -> TokenScores:
    """Several tokens as one: texts joined, numbers summed."""
    residuals = [token.residual for token in tokens if token.residual is not None]
    return TokenScores(
        "".join(token.text for token in tokens),
        tokens[0].token,
        sum(token.logprob for token in tokens),
        tuple(sum(column) for column in zip(*(token.scores for token in tokens), strict=True)),
        sum(token.base for token in tokens),
        sum(residuals) if residuals else None,
    )


def _floats(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
