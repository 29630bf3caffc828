import csv
import gzip
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from core.errors import DataError
from llm.files import is_data, read_records, read_rows, stem, table_rows
from llm.records import Record
from tests.llm.conftest import question

LINE = '{"question": "q", "answer": "a"}\n'
ROWS = [{"question": "Who, then?", "answer": "I\n"}, {"question": "\u00fcber", "answer": "Q\u2028"}]
RECORDS = (question("Who, then?", "I\n"), question("\u00fcber", "Q\u2028"))


def written(path: Path, rows: list[dict[str, Any]], form: str) -> Path:
    """The rows in a file of this form, packed when the form ends in .gz."""
    match form.removesuffix(".gz").lower():
        case "csv" | "tsv" as kind:
            with path.open("w", newline="", encoding="utf-8") as file:
                table = csv.DictWriter(file, list(rows[0]), delimiter="," if kind == "csv" else "\t")
                table.writeheader()
                table.writerows(rows)
        case "parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        case "json":
            path.write_text(json.dumps(rows, indent=2), encoding="utf-8")
        case _:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if not form.endswith(".gz"):
        return path
    with path.open("rb") as plain, gzip.open(f"{path}.gz", "wb") as packed:
        shutil.copyfileobj(plain, packed)
    return path.with_name(f"{path.name}.gz")


FORMS = ["jsonl", "ndjson", "json", "JSONL", "csv", "tsv", "parquet", "jsonl.gz", "json.gz", "csv.gz"]


@pytest.mark.parametrize("form", FORMS)
def test_a_file_of_any_form_has_the_same_records(tmp_path: Path, form: str) -> None:
    path = written(tmp_path / f"x.{form.removesuffix('.gz')}", ROWS, form)
    assert read_records(path) == RECORDS
    assert is_data(path)
    assert stem(path) == "x"


@pytest.mark.parametrize("name", ["x.txt", ".x.jsonl", "~$x.csv", "x.jsonl.swp", "jsonl", "x.gz"])
def test_other_files_are_no_data(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(LINE)
    assert not is_data(tmp_path / name)
    (tmp_path / "folder.jsonl").mkdir()
    assert not is_data(tmp_path / "folder.jsonl")


@pytest.mark.parametrize("name", ["x.jsonl", "x.json"])
def test_lines_and_a_list_are_told_apart_by_what_they_are(tmp_path: Path, name: str) -> None:
    for text in (LINE * 2, f"\n[{LINE}, {LINE}]", f"\r\n{LINE}\r\n{LINE}"):
        (tmp_path / name).write_text(text, newline="")
        assert read_records(tmp_path / name) == (question("q", "a"),) * 2


@pytest.mark.parametrize(
    ("form", "text"), [("jsonl", LINE), ("json", f"[{LINE}]"), ("csv", "question,answer\nq,a\n"), ("txt", LINE)]
)
def test_a_byte_order_mark_is_no_part_of_the_first_record(tmp_path: Path, form: str, text: str) -> None:
    path = tmp_path / f"x.{form}"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_records(path) == (question("q", "a"),)
    path.write_bytes(text.encode("utf-16"))
    with pytest.raises(DataError, match=r"x\..*:1: expected UTF-8, got UTF-16: save it as UTF-8"):
        read_records(path)


def test_a_list_names_the_record_that_is_malformed(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(f'[{LINE}, {LINE}, {{"question": "q"}}]')
    with pytest.raises(DataError, match=r"x\.json record 3: expected \{instruction"):
        read_records(tmp_path / "x.json")


def test_one_object_over_several_lines_is_refused_with_what_is_expected(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"data": ROWS}, indent=2))
    with pytest.raises(DataError, match=r"x\.json:1: expected one object a line, or a list of objects, got not JSON"):
        read_records(tmp_path / "x.json")


# --- tables ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_is_separated_by_what_its_first_line_has_most_of(tmp_path: Path, separator: str) -> None:
    lines = (("question", "answer", "note"), ("What, now?", "This; that", ""))
    path = tmp_path / "x.csv"
    path.write_text("".join(separator.join(f'"{cell}"' for cell in line) + "\r\n" for line in lines))
    assert read_records(path) == (question("What, now?", "This; that"),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("question,answer\nq,a\nq,a,b\n", r"x\.csv:3: expected 2 cells, got 3"),
        ("question,answer\nq,a\n\nq,\n", r"x\.csv:4: .* null in \['answer'\]"),
        ('question,answer\nq,"a\n', r"x\.csv:\d: expected CSV in UTF-8"),
        ("question,answer,answer\nq,a,b\n", r"x\.csv:1: expected each column once, got 'answer' twice"),
        ("question,answer\n", r"x\.csv: expected records"),
        ("", r"x\.csv: expected records"),
    ],
)
def test_a_malformed_table_is_named_by_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_records(tmp_path / "x.csv")


def test_a_table_in_another_encoding_is_refused_with_what_is_expected(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes("question,answer\nq,a\nq,caf\u00e9\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"x\.csv:\d: expected CSV in UTF-8, got .*can't decode"):
        read_records(tmp_path / "x.csv")


def test_a_long_cell_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(f"question,answer\nq,{'a' * 200_000}\n")
    assert len(read_records(tmp_path / "x.csv")[0].answer) == 200_000


def test_parquet_has_nulls_numbers_conversations_and_class_labels(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    empty = dict.fromkeys(("text", "label", "question", "answer", "messages"))
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    rows = [
        empty | {"text": "Fine.", "label": 1},
        empty | {"question": "Sum?", "answer": 3.0},
        empty | {"messages": turns},
    ]
    table = datasets.Dataset.from_list(rows).cast_column("label", datasets.ClassLabel(names=["bad", "good"]))
    table.to_parquet(tmp_path / "x.parquet")
    expected = (question("Fine.", "good"), question("Sum?", "3"), question("q", "a"))
    assert read_records(tmp_path / "x.parquet") == expected
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([*rows, empty]), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"x\.parquet row 4: expected"):
        read_records(tmp_path / "x.parquet")


def test_a_number_that_is_no_class_s_is_no_label(tmp_path: Path) -> None:
    """`datasets` writes −1 where nobody has labelled a row: it must not become the last class."""
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_list([{"text": "Fine.", "label": -1}])
    table.cast_column("label", datasets.ClassLabel(names=["bad", "good"])).to_parquet(tmp_path / "x.parquet")
    assert read_records(tmp_path / "x.parquet") == (Record((), "Fine."),)
    odd = SimpleNamespace(features={"label": SimpleNamespace(names=["bad"])}, to_pylist=lambda: [{"label": 1}])
    with pytest.raises(DataError, match="x row 1: expected a label below 1 in label, got 1"):
        tuple(table_rows("x", odd))


@pytest.mark.parametrize(("name", "message"), [("x.parquet", "expected Parquet"), ("x.jsonl.gz", "can be read")])
def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / name).write_text(LINE)
    with pytest.raises(DataError, match=rf"{name}: .*{message}"):
        read_records(tmp_path / name)


def test_a_packed_file_that_is_cut_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(LINE.encode() * 100)[:-12])
    with pytest.raises(DataError, match=r"x\.jsonl\.gz: expected a file that can be read"):
        read_records(tmp_path / "x.jsonl.gz")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="got No such file"):
        list(read_rows(tmp_path / "x.jsonl"))


# --- lines -----------------------------------------------------------------------------------------------------


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


def test_a_field_that_is_given_twice_is_refused_by_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(f'{LINE}{{"instruction": "i", "input": "1", "input": "2", "output": "o"}}\n')
    with pytest.raises(DataError, match=r"x\.jsonl:2: .*expected each field once, got 'input' twice"):
        read_records(tmp_path / "x.jsonl")


def test_a_file_that_is_empty_or_not_text_is_refused(tmp_path: Path) -> None:
    for data in (b"", b"\n\n", b"\xff\xfe\x00"):
        (tmp_path / "x.jsonl").write_bytes(data)
        with pytest.raises(DataError, match=r"x\.jsonl"):
            read_records(tmp_path / "x.jsonl")


def test_a_line_separator_inside_a_string_does_not_end_a_record(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"question": "a\u2028b", "answer": "c"}\n', encoding="utf-8")
    assert read_records(tmp_path / "x.jsonl")[0].prompt[0].content == "a\u2028b"
