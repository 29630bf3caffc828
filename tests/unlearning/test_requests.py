"""Requests to erase: the records in them, and where the coordinator has them from."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from core import keys, seeds
from core.canonical import to_json
from core.config import RunConfig
from core.erasures import OpenedRequest
from core.errors import ConfigError, DataError, FormatError, UsageError
from llm.records import Message, Record
from tests import erasures as e
from tests import federation as f
from unlearning.requests import read_digests, read_request, request_of, shards_of

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


# --- requests as they reach the coordinator ------------------------------------------------------------------------


def test_settings_of_a_simulation_are_a_request_of_the_organisation_that_they_name(tmp_path: Path) -> None:
    genesis = f.genesis()
    rows = write(tmp_path / "erase.jsonl", {"question": "1?", "answer": "1"}, {"question": "0?", "answer": "0"})
    settings = RunConfig(seed=7, organisation="medical", method="replay", records=str(rows), basis="a test")
    before = datetime.now(UTC).date().isoformat()
    made = request_of(settings, genesis)
    expected = OpenedRequest.of(keys.derive(7, "medical"), genesis, "replay", read_digests(rows), "a test", e.TODAY)
    assert made.request.value.question == expected.request.value.question
    assert before <= made.request.value.date <= datetime.now(UTC).date().isoformat()
    assert made.verified(genesis).value.count == 2
    assert request_of(replace(settings, records=""), genesis).verified(genesis).value.whole


def test_the_file_of_a_request_is_the_request_whatever_the_other_settings_say(tmp_path: Path) -> None:
    made = OpenedRequest.of(f.key("coding"), f.genesis(), "replay", (FIRST.digest,), "a test", e.TODAY)
    (path := tmp_path / "request.json").write_bytes(to_json(made.to_dict()))
    assert request_of(RunConfig(request=str(path), organisation="medical", method="remove"), f.genesis()) == made
    path.write_bytes(b"{}")
    with pytest.raises(FormatError, match="opened request"):
        read_request(path)
    with pytest.raises(UsageError, match=r"expected a file of `foedus request`, got No such file"):
        read_request(tmp_path / "none.json")


def test_nobody_asks_for_an_organisation_with_a_key_of_its_own() -> None:
    own = tuple(replace(member, derived=False) for member in f.members())
    with pytest.raises(ConfigError, match="expected the file that medical has signed"):
        request_of(RunConfig(organisation="medical", method="remove"), f.genesis(organisations=own))


def test_records_of_an_organisation_that_is_no_member_have_no_shards() -> None:
    with pytest.raises(UsageError, match=r"expected one of .*, got"):
        shards_of(f.genesis(), keys.derive(1, "stranger").address, (FIRST.digest,))
