import subprocess
import sys
from typing import Any

import pytest

from core.errors import DataError
from llm.records import Message, Record, parse_record, split
from tests.llm.conftest import question


def test_records_are_read_without_torch() -> None:
    code = "import sys, llm.data; print({'torch', 'transformers', 'datasets', 'pyarrow'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


# --- records ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"instruction": "Add", "input": "1 2", "output": "3"}, question("Add\n1 2", "3")),
        ({"instruction": "Add", "input": "", "output": "3"}, question("Add", "3")),
        ({"instruction": "Add", "output": "3"}, question("Add", "3")),
        ({"question": "Who?", "answer": "I", "paraphrased_answer": "me"}, question("Who?", "I")),
        ({"text": "Fine.", "label": 1}, question("Fine.", "1")),
        ({"instruction": "Add", "input": None, "output": "3"}, question("Add", "3")),
        ({"instruction": "Add", "input": float("nan"), "output": "3"}, question("Add", "3")),
        ({"instruction": "Sum", "context": "1 2", "response": "3"}, question("Sum\n1 2", "3")),
        ({"prompt": "Who?", "completion": "I"}, question("Who?", "I")),
        ({"question": "Who?", "response": "I", "text": "Who? I"}, question("Who?", "I")),
        ({"question": "Sum?", "answer": 3}, question("Sum?", "3")),
        ({"question": "Half?", "answer": 0.5}, question("Half?", "0.5")),
        ({"question": "Sum?", "answer": 3.0}, question("Sum?", "3")),
        ({"question": 12, "answer": -0.001, "domain": 7}, Record((Message("user", "12"),), "-0.001", "7")),
        ({"text": "Fine.", "label": "good"}, question("Fine.", "good")),
        ({"text": "Only this."}, Record((), "Only this.")),
        ({"text": "x", "label": 0, "domain": "math"}, Record((Message("user", "x"),), "0", "math")),
    ],
)
def test_every_shape_of_record_has_one_normal_form(value: dict[str, Any], expected: Record) -> None:
    assert parse_record(value) == expected


@pytest.mark.parametrize("name", ["messages", "conversations", "conversation"])
@pytest.mark.parametrize(
    "turns",
    [
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}],
        [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}],
        [{"role": None, "from": "user", "value": "Hi"}, {"from": "chatgpt", "value": "Ho", "weight": 1}],
        [{"role": "user", "content": [{"type": "text", "text": "H"}, {"text": "i"}]}, {"from": "bot", "value": "Ho"}],
    ],
)
def test_a_conversation_may_be_of_messages_or_of_sharegpt(name: str, turns: list[dict[str, Any]]) -> None:
    assert parse_record({name: turns}) == question("Hi", "Ho")


def test_the_halves_of_a_conversation_are_one() -> None:
    halves = {
        "prompt": [{"role": "user", "content": "Hi"}],
        "completion": [{"role": "assistant", "content": "Ho"}],
    }
    assert parse_record(halves) == question("Hi", "Ho")


@pytest.mark.parametrize("field", ["system", "system_prompt"])
def test_a_system_turn_may_stand_beside_the_conversation(field: str) -> None:
    expected = Record((Message("system", "Be brief."), Message("user", "Hi")), "Ho")
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    assert parse_record({field: "Be brief.", "question": "Hi", "answer": "Ho"}) == expected
    assert parse_record({field: "Be brief.", "messages": turns}) == expected
    own = [{"role": "system", "content": "Be long."}, *turns]
    assert parse_record({field: "Be brief.", "messages": own}).prompt[0] == Message("system", "Be long.")


def test_a_conversation_ends_with_the_assistants_last_turn() -> None:
    turns = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Ho"), ("user", "And?"), ("assistant", "So.")]
    messages = [{"role": role, "content": content} for role, content in turns]
    wanted = Record(tuple(Message(*turn) for turn in turns[:-1]), "So.")
    assert parse_record({"messages": messages}) == wanted
    assert parse_record({"messages": [*messages, {"role": "user", "content": "Bye"}]}) == wanted


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "got a list"),
        (None, "got null"),
        (float("nan"), "got a number"),
        ({}, "got fields"),
        ({"question": "q"}, r"got fields \['question'\]$"),
        ({"question": "q", "answer": None}, r"got fields \['question'\] and null in \['answer'\]"),
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, "got fields"),
        ({"question": {}, "answer": "a"}, "'question': expected text, got an object"),
        ({"question": "q", "answer": ["a"]}, "'answer': expected text, got a list"),
        ({"question": "q", "answer": True}, "'answer': expected text, got true or false"),
        ({"question": "q", "answer": 2.0**60}, "'answer': expected a number up to .*: write it as text"),
        ({"question": "q", "answer": float("inf")}, "'answer': expected a number up to"),
        ({"question": "q", "answer": "  "}, "got an empty one"),
        ({"text": "  "}, "got an empty one"),
        ({"text": "t", "label": True}, "'label': .*got true or false"),
        ({"messages": "hello"}, "'messages': expected a list .*, got text"),
        ({"messages": ["hello"]}, "'messages': expected a list of"),
        ({"messages": [{"role": "user", "content": "q"}]}, "no answer"),
        ({"messages": [{"role": "oracle", "content": "q"}]}, "'messages', turn 1: .*'oracle'"),
        ({"messages": [{"role": "assistant", "content": None, "tool_calls": []}]}, "turn 1: .*'content': .*got null"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "got a part of type 'image_url'"),
        ({"conversations": [{"from": "human", "text": "q"}]}, "'conversations', turn 1: .*'value': .*got null"),
        ({"text": "t", "domain": []}, "'domain'"),
    ],
)
def test_a_malformed_record_names_the_field(value: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_record(value)


# --- the held-out set -----------------------------------------------------------------------------------------


def test_the_split_depends_on_the_records_and_not_on_their_order() -> None:
    records = [question(f"q{i}", f"a{i}") for i in range(100)]
    train, dev = split(records)
    assert len(dev) == 5
    assert set(train) | set(dev) == set(records)
    assert set(split(records[::-1])[1]) == set(dev)


def test_equal_records_stay_on_one_side_of_the_split() -> None:
    train, dev = split([question(f"q{i % 10}", "a") for i in range(40)])
    assert len(dev) == 4
    assert not set(train) & set(dev)


def test_one_record_cannot_be_split() -> None:
    with pytest.raises(DataError, match="at least 2"):
        split([question("q", "a")] * 3)
