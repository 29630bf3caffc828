"""Tasks, replies and losses: what arrives is what was sent, and whatever else comes is a FormatError."""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from core.adapter import AdapterState
from core.canonical import digest, from_json, to_json
from core.composition import Composition, Part
from core.errors import FormatError
from core.messages import codec, training
from core.messages.training import Reply, Task
from core.rounds import Salts
from core.signed import Signed
from core.update import UpdateManifest
from core.wire import DOWN, Packed, to_send
from tests import federation as f
from tests.core.messages.records import NOT_JSON, config, with_record

GENESIS = f.genesis()
UPDATE = f.update_of(GENESIS, "medical")
SIGNED = f.signed(GENESIS)
RECORD = f.record(GENESIS).sign(f.COORDINATOR, GENESIS.chain)
SERVED = Composition.of(UPDATE)
TASK = Task(GENESIS, f.address("medical"), 0, 0, 2, (), RECORD, Salts.draw(RECORD.value), SERVED)


def reply(signed: Signed[UpdateManifest] = SIGNED, update: AdapterState = UPDATE) -> RecordDict:
    return training.reply(signed, update)


def test_a_task_arrives_as_it_was_sent() -> None:
    assert Task.from_content(TASK.to_content()) == TASK
    first = replace(TASK, round=1, parent=None, salts=None)
    assert Task.from_content(first.to_content()) == first
    assert first.shown == ()
    long = replace(TASK, earlier=TASK.shown)
    assert Task.from_content(long.to_content()) == long
    assert long.shown == TASK.shown * 2


@pytest.mark.parametrize("wire", ["bf16", "int8", "nf4", "sparse"])
def test_a_state_goes_down_in_the_federations_form_and_no_other(wire: str) -> None:
    task = replace(TASK, genesis=replace(GENESIS, wire=wire))
    content = task.to_content()
    assert bytes(codec.bytes_of(content, "state")) == to_send(TASK.state, wire).data
    assert Task.from_content(content) == replace(task, served=Composition.of(to_send(TASK.state, wire).state))
    with pytest.raises(FormatError, match=f"expected a state in {DOWN[wire]}, got fp32"):
        Task.from_content(with_record(content, state=codec.pack(TASK.state)))


def test_a_state_is_compressed_once_for_all_who_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    task = replace(TASK, genesis=replace(GENESIS, wire="int8"), served=Composition.of(f.delta(UPDATE.shapes, "new")))
    first = codec.bytes_of(task.to_content(), "state")
    monkeypatch.setattr(Packed, "of", lambda *_: pytest.fail("it was compressed again"))
    assert codec.bytes_of(task.to_content(), "state") == first


def test_what_an_organisation_was_paid_arrives_by_round() -> None:
    task = replace(TASK, paid={1: 0.5, 12: 2.0})
    assert Task.from_content(task.to_content()).paid == {1: 0.5, 12: 2.0}
    with pytest.raises(FormatError, match="payment"):
        Task.from_content(with_task(paid={"one": 1.0}))


def test_a_record_comes_with_its_salts() -> None:
    for missing in ("parent", "salts"):
        with pytest.raises(FormatError, match="a record comes with its salts"):
            Task.from_content(with_task(**{missing: None}))


def with_task(**changes: Any) -> RecordDict:
    """The task's content; `changes` overwrite what its JSON says."""
    content = TASK.to_content()
    return with_record(content, task=config(codec.json_of(content, "task", 2**20) | changes))


def test_a_reply_arrives_as_it_was_sent() -> None:
    got = Reply.from_content(reply())
    assert got.signed == SIGNED
    assert bytes(got.update) == UPDATE.to_bytes()
    assert digest("adapter", got.update) == SIGNED.value.update


def test_losses_arrive_as_they_were_sent() -> None:
    assert training.losses_of(training.losses({"base": 3.5, "global": 2})) == {"base": 3.5, "global": 2.0}


NOT_ARRAYS: dict[str, Any] = {
    "nothing": None,
    "a config": ConfigRecord({"bytes": b""}),
    "another name": ArrayRecord({"data": Array(np.zeros(3, np.uint8))}),
    "a NumPy file": ArrayRecord({"bytes": Array(np.zeros(3, np.uint8))}),
    "a pickle": ArrayRecord({"bytes": Array("object", (1,), "numpy.ndarray", b"\x80\x04K\x01.")}),
    "a zip that NumPy would open": ArrayRecord({"bytes": Array("uint8", (4,), "numpy.ndarray", b"PK\x03\x04")}),
}


@pytest.mark.parametrize("record", NOT_ARRAYS.values(), ids=NOT_ARRAYS)
def test_a_reply_whose_update_is_no_safetensors_is_malformed(record: Any) -> None:
    with pytest.raises(FormatError, match="update"):
        Reply.from_content(with_record(reply(), update=record))


def test_the_state_of_a_task_is_parsed_strictly() -> None:
    array = Array("uint8", (9,), "safetensors", UPDATE.to_bytes() + b"\x00")
    with pytest.raises(FormatError, match="canonical"):
        Task.from_content(with_record(TASK.to_content(), state=ArrayRecord({"bytes": array})))


@pytest.mark.parametrize("record", NOT_JSON.values(), ids=NOT_JSON)
def test_what_is_no_canonical_object_is_a_format_error(record: Any) -> None:
    with pytest.raises(FormatError):
        Reply.from_content(with_record(reply(), manifest=record))
    with pytest.raises(FormatError):
        Task.from_content(with_record(TASK.to_content(), task=record))


@pytest.mark.parametrize("signatures", [None, [5], "0x", {}])
def test_a_reply_without_signatures_is_malformed(signatures: Any) -> None:
    manifest = config(SIGNED.to_dict() | {"signatures": signatures})
    with pytest.raises(FormatError, match="signatures"):
        Reply.from_content(with_record(reply(), manifest=manifest))


@pytest.mark.parametrize("field", ["organisation", "lane", "generation", "round", "genesis", "parent"])
def test_no_field_of_a_task_may_be_missing(field: str) -> None:
    content = TASK.to_content()
    task = codec.json_of(content, "task", 2**20)
    del task[field]
    with pytest.raises(FormatError):
        Task.from_content(with_record(content, task=config(task)))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [1.0, 2.0], -0.5, 1.7e308, 2e6])
def test_losses_are_numbers_of_nats(value: Any) -> None:
    with pytest.raises(FormatError, match="global: expected"):
        training.losses_of(RecordDict({"losses": MetricRecord({"base": 1.0, "global": value})}))


@pytest.mark.parametrize("names", [["base"], ["global"], ["base", "global", "more"], ["x\x1b[31m"]])
def test_losses_have_the_names_that_were_asked_for(names: list[str]) -> None:
    with pytest.raises(FormatError, match="losses: expected base and global"):
        training.losses_of(RecordDict({"losses": MetricRecord(dict.fromkeys(names, 1.0))}))


@pytest.mark.parametrize("changes", [{"lane": "0"}, {"round": -1}, {"organisation": 7}, {"generation": 2**53}])
def test_a_task_says_where_in_the_expected_types(changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        Task.from_content(ensemble(**changes))


def test_a_manifest_above_16_kib_is_refused_before_it_is_parsed() -> None:
    huge = ConfigRecord({"json": b'{"a":[' + b"[]," * 3_000_000 + b"[]]}"})
    began = time.process_time()
    with pytest.raises(FormatError, match="expected at most 16384 bytes, got 9000010"):
        Reply.from_content(with_record(reply(), manifest=huge))
    assert time.process_time() - began < 0.1


@pytest.mark.parametrize("content", [RecordDict(), RecordDict({"losses": ConfigRecord({"base": 1.0})})])
def test_a_reply_without_losses_is_malformed(content: RecordDict) -> None:
    with pytest.raises(FormatError, match="carries no losses"):
        training.losses_of(content)


# --- what is served of several lanes -------------------------------------------------------------------------------


def ensemble(**changes: Any) -> RecordDict:
    """A task with two states; `changes` overwrite what its JSON says."""
    parts = (Part(0.25, UPDATE), Part(0.75, f.update_of(GENESIS, "coding")))
    content = replace(TASK, served=Composition("ensemble", parts)).to_content()
    plain = from_json(content.config_records["task"]["json"])
    content["task"] = ConfigRecord({"json": to_json(plain | changes)})
    return content


def test_a_composition_arrives_as_it_was_sent() -> None:
    task = Task.from_content(ensemble())
    assert task.served.kind == "ensemble"
    assert task.served.parts == ((0.25, UPDATE), (0.75, f.update_of(GENESIS, "coding")))
    with pytest.raises(FormatError, match="expected one state to train, got 2"):
        _ = task.state


@pytest.mark.parametrize(
    "changes",
    [
        {"composition": "median"},
        {"composition": "sum"},
        {"composition": 1},
        {"shares": []},
        {"shares": [1.0]},
        {"shares": [0.5, 0.25, 0.25]},
        {"shares": [0.0, 1.0]},
        {"shares": [-0.5, 1.5]},
        {"shares": ["half", 0.5]},
        {"shares": [True, 0.5]},
        {"shares": 2},
    ],
)
def test_a_broken_composition_is_a_format_error(changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        Task.from_content(ensemble(**changes))
