"""Requests, field by field; the endpoint's own tests look at what becomes of them."""

from typing import Any

import pytest

from console.web.chat_request import MOST_TOKENS, ChatRequest, RequestError
from llm.decoding import Sampling
from llm.records import Message
from provenance.serving import ANY_METHOD

PLAIN: dict[str, Any] = {"model": "run", "messages": [{"role": "user", "content": "Why?"}]}


def test_what_is_not_given_is_as_openai_has_it() -> None:
    found = ChatRequest.of(PLAIN)
    assert (found.run, found.stream, found.usage, found.question.method) == ("run", False, False, "")
    assert (found.question.sampling.temperature, found.question.sampling.top_p) == (1.0, 1.0)
    assert found.question.turns == (Message("user", "Why?"),)
    assert found.question.stop == ()


def test_a_receipt_is_about_the_request_with_every_default_filled_in() -> None:
    found = ChatRequest.of(PLAIN | {"seed": 3, "provenance": True})
    assert found.plain == {
        "model": "run", "messages": PLAIN["messages"], "max_tokens": found.question.most, "stop": [],
        "temperature": 1.0, "top_p": 1.0, "seed": 3,
    }  # fmt: skip
    drawn = {ChatRequest.of(PLAIN).plain["seed"] for _ in range(8)}
    assert len(drawn) > 1


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("provenance", True, ANY_METHOD),
        ("provenance", False, ""),
        ("provenance", "gradient", "gradient"),
        ("provenance", None, ""),
    ],
)
def test_provenance_names_a_method(field: str, value: Any, expected: str) -> None:
    assert ChatRequest.of(PLAIN | {field: value}).question.method == expected


def test_both_names_of_the_most_tokens_are_read() -> None:
    assert ChatRequest.of(PLAIN | {"max_tokens": 3}).question.most == 3
    assert ChatRequest.of(PLAIN | {"max_tokens": 3, "max_completion_tokens": 4}).question.most == 4
    assert ChatRequest.of(PLAIN | {"max_tokens": MOST_TOKENS}).question.most == MOST_TOKENS


def test_developers_speak_as_the_system_and_stops_may_be_one_text() -> None:
    found = ChatRequest.of(PLAIN | {"messages": [{"role": "developer", "content": "Be short."}], "stop": "\n"})
    assert found.question.turns == (Message("system", "Be short."),)
    assert found.question.stop == ("\n",)


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": float("nan")}, {"temperature": True}, {"temperature": "1"}, {"top_p": float("inf")},
        {"seed": 1.5}, {"seed": True}, {"max_tokens": 2.0}, {"max_tokens": 10**30}, {"stream": 1},
        {"stream_options": []}, {"messages": {}}, {"messages": [[]]}, {"messages": [{}]}, {"messages": ["x"] * 300},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        {"messages": [{"role": ["user"], "content": "x"}]}, {"messages": [{"role": "user", "content": None}]},
        {"stop": [1]}, {"stop": ["x" * 257]}, {"stop": 3}, {"functions": []}, {"model": 3}, {"tool_choice": "required"},
        {"\x00": 1},
    ],
)  # fmt: skip
def test_what_is_none_is_refused_by_name(change: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="expected"):
        ChatRequest.of(PLAIN | change)


def test_an_integer_that_json_cannot_hold_is_told_the_bound() -> None:
    with pytest.raises(RequestError, match=r"seed: expected an integer within ±\(2\^53 − 1\), got 1.15"):
        ChatRequest.of(PLAIN | {"seed": float(2**60)})


def test_a_seed_may_be_any_integer() -> None:
    assert ChatRequest.of(PLAIN | {"seed": -1}).question.sampling == Sampling(1.0, 1.0, 2**53 - 1)
