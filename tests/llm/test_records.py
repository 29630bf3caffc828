import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from core.errors import DataError
from llm.records import Message, Record, parse_record, read_folder, read_published, read_records, split
from tests.llm.conftest import question

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"
LINE = '{"question": "q", "answer": "a"}\n'


def write(path: Path, *records: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def many(count: int, start: int = 0) -> list[dict[str, str]]:
    return [{"question": f"q{i}", "answer": f"a{i}"} for i in range(start, start + count)]


def test_records_are_read_without_torch() -> None:
    code = "import sys, llm.records; print({'torch', 'transformers', 'numpy'} & set(sys.modules))"
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
        ({"text": "Fine.", "label": "good"}, question("Fine.", "good")),
        ({"text": "Only this."}, Record((), "Only this.")),
        ({"text": "x", "label": 0, "domain": "math"}, Record((Message("user", "x"),), "0", "math")),
    ],
)
def test_every_shape_of_record_has_one_normal_form(value: dict[str, Any], expected: Record) -> None:
    assert parse_record(value) == expected


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
        ({"question": 3, "answer": "a"}, "'question': .*got int"),
        ({"answer": "a"}, "'question'"),
        ({"question": "q", "answer": "  "}, "got an empty one"),
        ({"instruction": "i", "input": None, "output": "o"}, "'input': .*got NoneType"),
        ({"text": "t", "label": 0.5}, "'label': .*got float"),
        ({"text": "t", "label": True}, "'label': .*got bool"),
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


@pytest.mark.parametrize("shape", ["question", "label", "messages"])
def test_half_a_character_is_named_by_file_line_and_field(tmp_path: Path, shape: str) -> None:
    lines = {
        "question": r'{"question": "Which sign?", "answer": "The sign \ud83d was cut."}',
        "label": r'{"text": "Fine.", "label": "\ud83d"}',
        "messages": r'{"messages": [{"role": "assistant", "content": "a \udc00"}]}',
    }
    (tmp_path / "x.jsonl").write_text(f"{LINE}{lines[shape]}\n")
    with pytest.raises(DataError, match=r"x\.jsonl:2: field .*: expected Unicode text, got \\u.* alone"):
        read_records(tmp_path / "x.jsonl")


@pytest.mark.parametrize("data", [b"[" * 10**5 + b"]" * 10**5, LINE.encode("utf-16"), b"1" * 5000])
def test_a_line_that_would_harm_a_parser_is_named_by_file_and_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.jsonl").write_bytes(data)
    with pytest.raises(DataError, match=r"x\.jsonl:1: "):
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


def test_folders_that_cannot_serve_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing: expected a folder .*, got none"):
        read_folder(tmp_path / "missing")
    with pytest.raises(DataError, match="got no organisation"):
        read_folder(tmp_path)
    write(tmp_path / "a.jsonl", *many(3))
    with pytest.raises(DataError, match=r"expected 2 organisations, got 1 \(a\)"):
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


def test_published_records_are_all_read_and_none_is_held_out(tmp_path: Path) -> None:
    write(tmp_path / "b.jsonl", *many(1))
    write(tmp_path / "a" / "train.jsonl", *many(3))
    assert {name: len(records) for name, records in read_published(tmp_path).items()} == {"a": 3, "b": 1}
    for folder in (tmp_path / "none", tmp_path / "a"):
        (tmp_path / "a" / "train.jsonl").unlink(missing_ok=True)
        with pytest.raises(DataError, match="got no organisation"):
            read_published(folder)
