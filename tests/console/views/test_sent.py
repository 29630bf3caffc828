"""Totals of a site's own log, and files that are none."""

import json
from pathlib import Path

import pytest

from console.views.sent import KINDS, read_log, totals
from core.errors import UsageError
from core.messages import queries, training

ENTRIES = [
    {"run": "a", "what": "evaluate", "bytes": 700},
    {"run": "a", "what": "train", "bytes": 5000},
    {"run": "b", "what": "train", "bytes": 9},
    {"run": "a", "what": "train", "bytes": 5000},
]


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_a_log_s_answers_and_bytes_are_told_by_kind_for_one_run(tmp_path: Path) -> None:
    read = read_log(write(tmp_path / "sent.jsonl", *map(json.dumps, ENTRIES)))
    assert read == ENTRIES
    kinds = [(KINDS["train"], 2, 10000), (KINDS["evaluate"], 1, 700)]
    assert totals(read, "a") == {"answers": 3, "bytes": 10700, "kinds": kinds}
    assert totals([{"run": "d", "what": "else", "bytes": 1}], "d")["kinds"] == [("else", 1, 1)]
    assert totals(read, "c") == {"answers": 0, "bytes": 0, "kinds": []}


@pytest.mark.parametrize("line", ["{}", "nothing", "[]", '{"run": "a", "what": "train", "bytes": "5"}'])
def test_a_file_that_is_no_log_is_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(UsageError, match=r"sent\.jsonl:2: expected an entry"):
        read_log(write(tmp_path / "sent.jsonl", json.dumps(ENTRIES[0]), line))
    with pytest.raises(UsageError, match="an organisation"):
        read_log(tmp_path / "nowhere")


def test_every_kind_of_answer_has_words() -> None:
    names = [getattr(queries, name) for name in dir(queries) if name.isupper()] + [training.TRAIN, training.EVALUATE]
    assert {name for name in names if isinstance(name, str)} == set(KINDS)
