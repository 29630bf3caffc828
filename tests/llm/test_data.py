import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.errors import DataError
from llm.data import (
    IGNORED,
    Example,
    Message,
    Record,
    collate,
    encode,
    encode_prompt,
    pack,
    parse_record,
    read_folder,
    read_records,
    split,
)
from tests.llm.conftest import CHAT, byte_tokenizer, question

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"
LINE = '{"question": "q", "answer": "a"}\n'


def write(path: Path, *records: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def many(count: int, start: int = 0) -> list[dict[str, str]]:
    return [{"question": f"q{i}", "answer": f"a{i}"} for i in range(start, start + count)]


# --- records ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ({"instruction": "Add", "input": "1 2", "output": "3"}, question("Add\n1 2", "3")),
        ({"instruction": "Add", "input": "", "output": "3"}, question("Add", "3")),
        ({"instruction": "Add", "output": "3"}, question("Add", "3")),
        ({"question": "Who?", "answer": "I", "paraphrased_answer": "me"}, question("Who?", "I")),
        ({"text": "Fine.", "label": 1}, question("Fine.", "1")),
        ({"text": "Fine.", "label": "good"}, question("Fine.", "good")),
        ({"text": "Only this."}, Record((), "Only this.")),
        ({"text": "x", "label": 0, "domain": "math"}, Record((Message("user", "x"),), "0", "math")),
    ],
)
def test_every_shape_of_record_has_one_normal_form(value: dict[str, Any], wanted: Record) -> None:
    assert parse_record(value) == wanted


def test_a_conversation_ends_with_the_assistants_last_turn() -> None:
    turns = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Ho"), ("user", "And?"), ("assistant", "So.")]
    messages = [{"role": role, "content": content} for role, content in turns]
    wanted = Record(tuple(Message(*turn) for turn in turns[:-1]), "So.")
    assert parse_record({"messages": messages}) == wanted
    assert parse_record({"messages": [*messages, {"role": "user", "content": "Bye"}]}) == wanted


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "list"),
        ({}, "fields"),
        ({"question": "q"}, "fields"),
        ({"question": 3, "answer": "a"}, "'question': got int"),
        ({"answer": "a"}, "'question'"),
        ({"question": "q", "answer": "  "}, "empty answer"),
        ({"instruction": "i", "input": None, "output": "o"}, "'input': got NoneType"),
        ({"text": "t", "label": 0.5}, "'label': got float"),
        ({"text": "t", "label": True}, "'label': got bool"),
        ({"messages": "hello"}, "list of"),
        ({"messages": [{"role": "user", "content": "q"}]}, "no answer"),
        ({"messages": [{"role": "oracle", "content": "q"}]}, "'oracle'"),
        ({"text": "t", "domain": 3}, "'domain'"),
    ],
)
def test_a_malformed_record_names_the_field(value: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_record(value)


def test_a_malformed_line_is_named_by_file_and_line(tmp_path: Path) -> None:
    for line in ("not json", '{"question": "q"}', "NaN"):
        (tmp_path / "x.jsonl").write_text(f"{LINE}\n{LINE}{line}\n{LINE}")
        with pytest.raises(DataError, match=r"x\.jsonl:4: "):
            read_records(tmp_path / "x.jsonl")


def test_a_file_that_is_empty_or_not_text_is_refused(tmp_path: Path) -> None:
    for data in (b"", b"\n\n", b"\xff\xfe\x00"):
        (tmp_path / "x.jsonl").write_bytes(data)
        with pytest.raises(DataError, match=r"x\.jsonl"):
            read_records(tmp_path / "x.jsonl")


def test_a_line_separator_inside_a_string_does_not_end_a_record(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"question": "a\u2028b", "answer": "c"}\n', encoding="utf-8")
    assert read_records(tmp_path / "x.jsonl")[0].prompt[0].content == "a\u2028b"


# --- folders ---------------------------------------------------------------------------------------------------


def test_a_folder_gives_its_organisations_in_order_of_name(tmp_path: Path) -> None:
    write(tmp_path / "beta.jsonl", *many(40))
    write(tmp_path / "alpha" / "train.jsonl", *many(4))
    write(tmp_path / "alpha" / "dev.jsonl", *many(2, start=10))
    write(tmp_path / "alpha" / "base.jsonl", {"never": "read"})
    write(tmp_path / "validation.jsonl", {"question": "v", "answer": "w", "domain": "s"})
    write(tmp_path / "other" / "imdb_train.jsonl", *many(1))
    (tmp_path / "README.md").write_text("words")
    found = read_folder(tmp_path)
    sizes = [(o.name, len(o.train), len(o.dev)) for o in found.organisations]
    assert sizes == [("alpha", 4, 2), ("beta", 38, 2)]
    assert found.validation == (Record((Message("user", "v"),), "w", "s"),)
    assert [note.split(":")[0] for note in found.notes] == ["README.md", "other", "beta"]


def test_fewer_organisations_are_the_first_by_name(tmp_path: Path) -> None:
    for name in "cab":
        write(tmp_path / f"{name}.jsonl", *many(2))
    assert [o.name for o in read_folder(tmp_path, 2).organisations] == ["a", "b"]


def test_folders_that_cannot_serve_are_refused_with_got_and_wanted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="got no such folder"):
        read_folder(tmp_path / "missing")
    with pytest.raises(DataError, match="got no organisation"):
        read_folder(tmp_path)
    write(tmp_path / "a.jsonl", *many(3))
    with pytest.raises(DataError, match=r"got 1 organisations \(a\), wanted 2"):
        read_folder(tmp_path, 2)
    write(tmp_path / "a" / "train.jsonl", *many(3))
    with pytest.raises(DataError, match="both"):
        read_folder(tmp_path)


def test_the_shared_data_give_four_domains() -> None:
    if not SHARED.is_dir():
        pytest.skip("the real data are not beside this checkout")
    found = read_folder(SHARED)
    assert [o.name for o in found.organisations] == ["coding", "financial", "math", "medical"]
    assert {record.domain for record in found.validation} == {"coding", "financial", "math", "medical"}


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


# --- tokens ----------------------------------------------------------------------------------------------------


def text(tokens: tuple[int, ...], template: str | None = None) -> str:
    return byte_tokenizer(template).decode(tokens)


def test_the_chat_template_of_the_tokenizer_is_used() -> None:
    example = encode(byte_tokenizer(CHAT), question("Who?", "I."), 100)
    assert text(example.tokens[: example.prompt_length]) == "<user>Who?\n<assistant>"
    assert text(example.tokens[example.prompt_length :]) == "I.</s>"


def test_without_a_chat_template_instruction_and_response_are_marked() -> None:
    example = encode(byte_tokenizer(), question("Who?", "I."), 100)
    assert text(example.tokens[: example.prompt_length]) == "<s>### Instruction:\nWho?\n\n### Response:\n"
    assert text(example.tokens[example.prompt_length :]) == "I.</s>"


def test_plain_text_is_all_answer() -> None:
    example = encode(byte_tokenizer(CHAT), Record((), "Once."), 100)
    assert text(example.tokens) == "<s>Once.</s>"
    assert example.prompt_length == 1


@pytest.mark.parametrize("template", [CHAT, None])
def test_generation_starts_from_the_tokens_that_training_put_before_the_answer(template: str | None) -> None:
    tokenizer = byte_tokenizer(template)
    example = encode(tokenizer, question("Who?", "I."), 100)
    assert encode_prompt(tokenizer, "Who?") == example.tokens[: example.prompt_length]


def test_a_template_that_writes_answers_differently_still_gets_answer_and_end() -> None:
    tokenizer = byte_tokenizer(CHAT.replace("<assistant>", "<assistant><think>"))
    example = encode(tokenizer, question("Who?", "I."), 100)
    assert text(example.tokens[example.prompt_length :]) == "I.</s>"


def test_turns_that_the_template_refuses_are_a_data_error() -> None:
    refuses = "{{ raise_exception('no system turns') }}"
    with pytest.raises(DataError, match="no system turns"):
        encode(byte_tokenizer(refuses), question("Who?", "I."), 100)


@given(st.integers(1, 200), st.integers(1, 200), st.integers(2, 120))
def test_truncation_keeps_the_answer_where_it_can(prompt: int, answer: int, length: int) -> None:
    tokenizer = byte_tokenizer("{{ messages[0].content }}")
    example = encode(tokenizer, question("p" * prompt, "a" * answer), length)
    wanted = answer + 1  # and the end token
    kept = len(example) - example.prompt_length
    assert len(example) == min(length, prompt + wanted)
    assert kept == min(wanted, length - min(prompt, length // 4))


def test_a_prompt_that_is_too_long_loses_its_middle() -> None:
    tokenizer = byte_tokenizer("{{ messages[0].content }}")
    example = encode(tokenizer, question("abcdefghij", "0123"), 9)
    assert text(example.tokens) == "abij0123</s>"


# --- packing ---------------------------------------------------------------------------------------------------

lengths = st.lists(st.integers(1, 16), min_size=1, max_size=60)


@given(lengths)
def test_packing_keeps_every_example_once_and_no_row_is_too_long(sizes: list[int]) -> None:
    rows = pack([Example((0,) * size, 0) for size in sizes], 16)
    assert sorted(index for row in rows for index in row) == list(range(len(sizes)))
    assert all(sum(sizes[index] for index in row) <= 16 for row in rows)


@given(lengths)
def test_at_most_one_row_is_half_empty(sizes: list[int]) -> None:
    rows = pack([Example((0,) * size, 0) for size in sizes], 16)
    assert sum(sum(sizes[index] for index in row) < 8 for row in rows) <= 1


def test_a_batch_restarts_positions_and_predicts_within_each_example() -> None:
    examples = [Example((10, 11, 12), 1), Example((20, 21), 1), Example((30, 31, 32, 33), 3)]
    batch = collate(examples, [(0, 1), (2,)])
    assert batch.tokens.tolist() == [[10, 11, 12, 20, 21], [30, 31, 32, 33, 0]]
    assert batch.positions.tolist() == [[0, 1, 2, 0, 1], [0, 1, 2, 3, 0]]
    assert batch.targets.tolist() == [[11, 12, IGNORED, 21, IGNORED], [IGNORED, IGNORED, 33, IGNORED, IGNORED]]
    assert batch.owners.tolist() == [[0, 0, 0, 1, 1], [2, 2, 2, 2, -1]]
    assert len(batch) == 4


def test_the_first_token_of_a_row_is_never_a_target() -> None:
    batch = collate([Example((7, 8), 0)], [(0,)])
    assert torch.equal(batch.targets, torch.tensor([[8, IGNORED]]))
