"""A request to `/v1/chat/completions`: what is known of OpenAI's fields, and what of them cannot be done here.

A field that would change the answer and is not known is refused, never ignored.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.errors import UsageError
from llm.decoding import Sampling
from llm.records import Message
from provenance.serving import ANY_METHOD, Question

Json = dict[str, Any]

MOST_TOKENS = 4096
_DEFAULT_TOKENS = 256
_MOST_TURNS, _MOST_STOPS, _LONGEST_STOP = 256, 4, 256
_ROLES: Mapping[str, str] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_IGNORED = frozenset({"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"})
"""Fields that say nothing about the answer."""
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "n": (1,), "logprobs": (False,), "top_logprobs": (0,), "presence_penalty": (0,), "frequency_penalty": (0,),
    "tools": ([],), "tool_choice": ("none", "auto"), "response_format": ({"type": "text"},), "logit_bias": ({},),
    "parallel_tool_calls": (True, False), "modalities": (["text"],),
}  # fmt: skip
"""Fields that are known, and the values of them that change nothing."""
_KINDS: Mapping[type, str] = {
    str: "text", bool: "true or false", dict: "an object",
    int: "an integer within ±(2^53 − 1)",  # beyond it, JSON's readers have a double
}  # fmt: skip


class RequestError(UsageError):
    """A field of a request that is none; `name` is its own."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name}: {message}")
        self.name = name


@dataclass(frozen=True)
class ChatRequest:
    """A request: the run, the question, and how to answer; `plain` is what the receipt is about."""

    run: str
    question: Question
    stream: bool
    usage: bool
    plain: Json

    @classmethod
    def of(cls, body: Any) -> "ChatRequest":
        """Parse a request's body; raises RequestError."""
        if not isinstance(body, dict):
            raise RequestError("body", f"expected an object, got {type(body).__name__}")
        check_fields(body)
        given = {name: value for name, value in body.items() if value is not None}
        run = _typed(given, "model", str, "")
        turns = turns_of(given.get("messages"))
        most = _typed(given, "max_completion_tokens", int, _typed(given, "max_tokens", int, _DEFAULT_TOKENS))
        if not 1 <= most <= MOST_TOKENS:
            raise RequestError("max_tokens", f"expected 1 to {MOST_TOKENS}, got {most:.6g}")
        sampling = Sampling(
            _number(given, "temperature", 0.0, 2.0), _number(given, "top_p", 0.0, 1.0),
            _typed(given, "seed", int, secrets.randbits(31)) % 2**53,
        )  # fmt: skip
        provenance = given.get("provenance", False)
        if not isinstance(provenance, bool | str):
            raise RequestError("provenance", f"expected true, false or a method, got {provenance!r:.80}")
        method = provenance if isinstance(provenance, str) else (ANY_METHOD if provenance else "")
        options = _typed(given, "stream_options", dict, {})
        question = Question(turns, most, sampling, stops_of(given.get("stop", [])), method)
        plain = {
            "model": run, "messages": [vars(turn) for turn in turns], "max_tokens": most, "stop": list(question.stop),
            "temperature": sampling.temperature, "top_p": sampling.top_p, "seed": sampling.seed,
        }  # fmt: skip
        return cls(run, question, _typed(given, "stream", bool, False), bool(options.get("include_usage")), plain)


def check_fields(body: Json) -> None:
    """Raise RequestError for a field that would change the answer and is not known here."""
    known = {
        "model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "stop", "stream",
        "stream_options", "provenance", *_IGNORED,
    }  # fmt: skip
    for name, value in body.items():
        if name in known or value is None or value in _NEUTRAL.get(name, ()):
            continue
        expected = f"expected {_NEUTRAL[name][0]!r}" if name in _NEUTRAL else "expected no such field"
        raise RequestError(f"{name:.80}", f"{expected}, got {value!r:.80}: this server does not do that")


def turns_of(messages: Any) -> tuple[Message, ...]:
    """The turns of a conversation; raises RequestError."""
    if not isinstance(messages, list) or not 1 <= len(messages) <= _MOST_TURNS:
        got = len(messages) if isinstance(messages, list) else type(messages).__name__
        raise RequestError("messages", f"expected a list of 1 to {_MOST_TURNS} turns, got {got}")
    return tuple(turn_of(number, message) for number, message in enumerate(messages))


def turn_of(number: int, message: Any) -> Message:
    """One turn, its content in one piece or in parts of text; raises RequestError."""
    place = f"messages[{number}]"
    role = message.get("role") if isinstance(message, dict) else message
    # Of any type, and a list cannot be looked up.
    if not isinstance(message, dict) or not isinstance(role, str) or role not in _ROLES:
        raise RequestError(f"{place}.role", f"expected one of {', '.join(_ROLES)}, got {role!r:.80}")
    content = message.get("content")
    if isinstance(content, list) and all(isinstance(p, dict) and p.get("type") == "text" for p in content):
        content = "".join(str(part.get("text", "")) for part in content)
    if not isinstance(content, str) or not content.strip():
        raise RequestError(f"{place}.content", f"expected text, got {content!r:.80}")
    return Message(_ROLES[role], content)


def stops_of(stop: Any) -> tuple[str, ...]:
    """The stop texts, one or several; raises RequestError."""
    stops = [stop] if isinstance(stop, str) else stop
    fits = isinstance(stops, list) and len(stops) <= _MOST_STOPS
    if not fits or not all(isinstance(s, str) and 1 <= len(s) <= _LONGEST_STOP for s in stops):
        raise RequestError("stop", f"expected up to {_MOST_STOPS} texts of 1 to {_LONGEST_STOP} characters")
    return tuple(stops)


def _number(given: Json, name: str, low: float, high: float) -> float:
    """A number within bounds; 1 without it, as OpenAI has it."""
    value = given.get(name, 1.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise RequestError(name, f"expected a number from {low:g} to {high:g}, got {value!r:.80}")
    return float(value)


def _typed(given: Json, name: str, kind: type, default: Any) -> Any:
    value = given.get(name, default)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise RequestError(name, f"expected {_KINDS[kind]}, got {value!r:.80}")
    return value
