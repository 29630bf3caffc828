"""Messages: nouns travel as their canonical bytes, and whatever else comes is a FormatError."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from core.adapter import AdapterState
from core.canonical import digest, from_json, to_json
from core.composition import Composition, Part
from core.erasures import ErasureRequest
from core.errors import FormatError
from core.messages import codec, queries, training
from core.messages.queries import Bind, Bound, Deletion, RecordsAnswer, RecordsQuery
from core.messages.training import Reply, Task
from core.rounds import Salts
from core.signed import Signed
from core.update import UpdateManifest
from tests import federation as f
from tests.erasures import attested, signed_receipt

GENESIS = f.genesis()
UPDATE = f.update_of(GENESIS, "medical")
SIGNED = f.signed(GENESIS)
RECORD = f.record(GENESIS).sign(f.COORDINATOR, GENESIS.chain)
SERVED = Composition.of(UPDATE)
TASK = Task(GENESIS, f.address("medical"), 0, 0, 2, (), RECORD, Salts.draw(RECORD.value), SERVED)
CHALLENGE = f.other("challenge")
BOUND = Bound(
    tuple(f.registration(member, CHALLENGE, f.key(member.name), f.CHAIN) for member in GENESIS.organisations), 4
)


def reply(signed: Signed[UpdateManifest] = SIGNED, update: AdapterState = UPDATE) -> RecordDict:
    return training.reply(signed, update)


def test_a_query_to_delete_and_its_receipt_arrive_as_they_were_sent() -> None:
    query = Deletion(GENESIS, f.address("medical"), attested(GENESIS))
    assert Deletion.from_content(query.to_content()) == query
    receipt = signed_receipt(GENESIS, query.attested.value.erasure, f.key("medical"))
    assert queries.receipt_of(queries.deleted(receipt)) == receipt


@pytest.mark.parametrize("broken", [{}, {"organisation": 1}, {"organisation": "0x", "signature": "0x"}, {"x": 1}])
def test_a_broken_receipt_is_a_format_error(broken: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        queries.receipt_of(RecordDict({"deleted": ConfigRecord({"json": to_json(broken)})}))


def test_a_query_to_delete_without_an_attestation_is_a_format_error() -> None:
    plain = {"genesis": GENESIS.to_dict(), "organisation": f.address("medical")}
    with pytest.raises(FormatError, match="malformed query to delete"):
        Deletion.from_content(RecordDict({"delete": ConfigRecord({"json": to_json(plain)})}))


REQUEST = ErasureRequest(
    GENESIS.digest, f.address("medical"), "shards", f.other("records"), 2, "GDPR Art. 17", f.other("nonce")
).sign(f.key("medical"), GENESIS.chain)
RECORDS = RecordsQuery(GENESIS, REQUEST, (f.other("one"), f.other("two")), forget=True)


def test_a_query_for_records_and_its_answer_arrive_as_they_were_sent() -> None:
    assert RecordsQuery.from_content(RECORDS.to_content()) == RECORDS
    assert not RecordsQuery.from_content(replace(RECORDS, forget=False).to_content()).forget
    answer = RecordsAnswer((f.other("one"),), (f.other("two"),))
    assert RecordsAnswer.from_content(answer.to_content()) == answer


@pytest.mark.parametrize(
    "broken", [{"records": ["0x"]}, {"records": 1}, {"request": {}}, {"genesis": {}}, {"records": None}], ids=str
)
def test_a_broken_query_for_records_is_a_format_error(broken: dict[str, Any]) -> None:
    plain = {"genesis": GENESIS.to_dict(), "request": REQUEST.to_dict(), "records": [], "forget": False} | broken
    with pytest.raises(FormatError):
        RecordsQuery.from_content(RecordDict({"records": ConfigRecord({"json": to_json(plain)})}))


@pytest.mark.parametrize("broken", [{}, {"held": [], "forgotten": 1}, {"held": ["x"], "forgotten": []}], ids=str)
def test_a_broken_answer_about_records_is_a_format_error(broken: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        RecordsAnswer.from_content(RecordDict({"known": ConfigRecord({"json": to_json(broken)})}))


def test_a_task_arrives_as_it_was_sent() -> None:
    assert Task.from_content(TASK.to_content()) == TASK
    first = replace(TASK, round=1, parent=None, salts=None)
    assert Task.from_content(first.to_content()) == first


def test_a_reply_arrives_as_it_was_sent() -> None:
    got = Reply.from_content(reply())
    assert got.signed == SIGNED
    assert bytes(got.update) == UPDATE.to_bytes()
    assert digest("adapter", got.update) == SIGNED.value.update


def test_a_bind_query_and_its_answer_arrive_as_they_were_sent() -> None:
    query = Bind(f.asked(CHALLENGE), f.CHAIN)
    assert Bind.from_content(query.to_content()) == query
    assert Bound.from_content(BOUND.to_content()) == BOUND


def test_losses_arrive_as_they_were_sent() -> None:
    assert training.losses_of(training.losses({"base": 3.5, "global": 2})) == {"base": 3.5, "global": 2.0}


def test_an_adapter_travels_as_its_canonical_bytes_and_nothing_more() -> None:
    record = codec.pack(UPDATE)
    (array,) = record.values()
    assert array.data == UPDATE.to_bytes()
    assert (array.dtype, array.shape, array.stype) == ("uint8", (len(array.data),), "safetensors")


def test_an_adapter_survives_flowers_own_transport() -> None:
    array = codec.pack(UPDATE)["bytes"]
    again = Array.inflate(array.deflate(), dict(array.children))
    content = RecordDict({"state": ArrayRecord({"bytes": again})})
    assert codec.unpack(content, "state") == UPDATE


def config(value: Any) -> ConfigRecord:
    return ConfigRecord({"json": value if isinstance(value, bytes) else to_json(value)})


def with_record(content: RecordDict, **records: Any) -> RecordDict:
    for name, record in records.items():
        if record is None:
            del content[name]
        else:
            content[name] = record
    return content


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


NOT_JSON: dict[str, Any] = {
    "nothing": None,
    "an array": codec.pack(UPDATE),
    "text": ConfigRecord({"json": "{}"}),
    "no JSON": config(b"\xff"),
    "JSON with white space": config(b"{ }"),
    "deep JSON": config(b"[" * 10**5),
    "a list": config([]),
    "a number": config(5),
    "an empty object": config({}),
    "another key": ConfigRecord({"data": b"{}"}),
}


@pytest.mark.parametrize("record", NOT_JSON.values(), ids=NOT_JSON)
@pytest.mark.parametrize(
    ("name", "content", "parse"),
    [
        ("manifest", reply, Reply.from_content),
        ("task", TASK.to_content, Task.from_content),
        ("bound", BOUND.to_content, Bound.from_content),
        ("bind", Bind(f.asked(CHALLENGE), f.CHAIN).to_content, Bind.from_content),
    ],
)
def test_a_message_that_is_malformed_is_a_format_error(
    record: Any, name: str, content: Callable[[], RecordDict], parse: Callable[[RecordDict], object]
) -> None:
    with pytest.raises(FormatError):
        parse(with_record(content(), **{name: record}))


@pytest.mark.parametrize("signatures", [None, [5], "0x", {}])
def test_a_reply_without_signatures_is_malformed(signatures: Any) -> None:
    manifest = config(SIGNED.to_dict() | {"signatures": signatures})
    with pytest.raises(FormatError, match="signatures"):
        Reply.from_content(with_record(reply(), manifest=manifest))


@pytest.mark.parametrize("field", ["organisation", "lane", "generation", "round", "genesis", "parent"])
def test_no_field_of_a_task_may_be_missing(field: str) -> None:
    content = TASK.to_content()
    task = codec.json_of(content, "task")
    del task[field]
    with pytest.raises(FormatError):
        Task.from_content(with_record(content, task=config(task)))


@pytest.mark.parametrize("known", [-1, "4", 1.5, True, None])
def test_how_many_organisations_a_node_knows_is_a_count(known: object) -> None:
    with pytest.raises(FormatError):
        Bound.from_content(RecordDict({"bound": config({"organisations": [], "known": known})}))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [1.0, 2.0]])
def test_losses_are_finite_numbers(value: Any) -> None:
    with pytest.raises(FormatError, match="global: expected a finite number"):
        training.losses_of(RecordDict({"losses": MetricRecord({"base": 1.0, "global": value})}))


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
