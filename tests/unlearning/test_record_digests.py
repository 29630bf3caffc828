import json
from dataclasses import replace
from pathlib import Path

import pytest

from core import seeds
from core.errors import DataError
from llm.records import Message, Record
from tests import federation as f
from unlearning.records import read_digests, shards_of

FIRST, SECOND = (Record((Message("user", f"{i}?"),), str(i)) for i in range(2))


def write(path: Path, *rows: dict[str, str]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def test_digests_are_in_order_and_each_once_whatever_the_shape_of_the_record(tmp_path: Path) -> None:
    rows = [{"question": "1?", "answer": "1"}, {"instruction": "0?", "output": "0"}, {"text": "1?", "label": "1"}]
    assert read_digests(write(tmp_path / "erase.jsonl", *rows)) == tuple(sorted((FIRST.digest, SECOND.digest)))


def test_a_malformed_record_is_named_by_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"erase\.jsonl:2: "):
        read_digests(write(tmp_path / "erase.jsonl", {"question": "?", "answer": "!"}, {"answer": "!"}))


def test_shards_are_those_that_the_records_fall_in() -> None:
    member = f.members()[0].address
    lanes = tuple((o.address,) for o in f.members() for _ in range(3))
    genesis = replace(f.genesis(), lanes=lanes)
    records = tuple(Record((), f"text {i}").digest for i in range(40))
    assert shards_of(genesis, member, records) == {0, 1, 2}
    for record in records[:5]:
        assert shards_of(genesis, member, (record,)) == {seeds.shard_of(record, 3)}
    assert shards_of(f.genesis(), member, records) == {0}
