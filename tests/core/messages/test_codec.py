"""How nouns lie in Flower's records: adapters as their canonical bytes, everything else as canonical JSON."""

import gc
import math
import weakref
from typing import Any

import pytest
from flwr.app import Array, ArrayRecord, RecordDict

from core.composition import Composition, Part
from core.errors import FormatError
from core.messages import codec
from core.wire import Packed
from tests import federation as f
from tests.core.messages.records import NOT_JSON

GENESIS = f.genesis()
UPDATE = f.update_of(GENESIS, "medical")


def test_an_adapter_travels_as_its_canonical_bytes_and_nothing_more() -> None:
    record = codec.pack(UPDATE)
    (array,) = record.values()
    assert array.data == UPDATE.to_bytes()
    assert (array.dtype, array.shape, array.stype) == ("uint8", (len(array.data),), "safetensors")


def test_compressed_bytes_travel_as_they_are() -> None:
    packed = Packed.of(UPDATE, "int8")
    assert codec.pack(packed)["bytes"].data == packed.data


def test_an_adapter_survives_flowers_own_transport() -> None:
    array = codec.pack(UPDATE)["bytes"]
    again = Array.inflate(array.deflate(), dict(array.children))
    content = RecordDict({"state": ArrayRecord({"bytes": again})})
    assert codec.unpack(content, "state") == UPDATE


def test_the_states_of_a_composition_are_arrays_in_their_order() -> None:
    other = f.update_of(GENESIS, "coding")
    record = codec.pack(Composition("ensemble", (Part(0.25, UPDATE), Part(0.75, other))))
    assert list(record) == codec.array_names(2) == ["bytes.0", "bytes.1"]
    content = RecordDict({"state": record})
    for part, state in (("bytes.0", UPDATE), ("bytes.1", other)):
        assert bytes(codec.bytes_of(content, "state", part)) == state.to_bytes()
    with pytest.raises(FormatError, match="'state'"):
        codec.bytes_of(content, "state", "bytes.2")


def test_a_composition_of_many_lanes_is_compressed_once_for_all_whom_a_round_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compressed, real = list[str](), codec.to_send
    monkeypatch.setattr(codec, "to_send", lambda state, wire: compressed.append(wire) or real(state, wire))
    states = [f.update_of(GENESIS, name, number) for name in ("coding", "medical") for number in (1, 2, 3)]
    served = Composition("ensemble", tuple(Part(1 / 6, state) for state in states))
    records = [codec.pack(served, "nf4") for _ in range(3)]
    assert compressed == ["nf4"] * 6
    assert len({bytes(array.data) for record in records for array in record.values()}) == 6


def test_a_round_sends_and_receives_a_state() -> None:
    assert codec.traffic(UPDATE, "fp32") == 2 * UPDATE.nbytes / 1_048_576
    assert codec.traffic(UPDATE, "bf16") == UPDATE.nbytes / 1_048_576


def test_arrays_that_are_released_are_freed_at_once() -> None:
    array = Array("uint8", (3,), "safetensors", b"abc")
    content, freed = RecordDict({"update": ArrayRecord({"bytes": array})}), weakref.ref(array)
    del array
    gc.disable()
    try:
        codec.release(content)
        assert freed() is None
    finally:
        gc.enable()


def test_an_object_comes_back_from_its_record() -> None:
    content = RecordDict({"query": codec.json_record({"b": 1, "a": [1.5, "text", None]})})
    assert content.config_records["query"]["json"] == b'{"a":[1.5,"text",null],"b":1}'
    assert codec.json_of(content, "query", 2**20) == {"a": [1.5, "text", None], "b": 1}


@pytest.mark.parametrize("kind", [kind for kind in NOT_JSON if kind not in {"nothing", "an empty object"}])
def test_what_is_no_canonical_object_is_a_format_error(kind: str) -> None:
    with pytest.raises(FormatError):
        codec.json_of(RecordDict({"query": NOT_JSON[kind]}), "query", 2**20)
    with pytest.raises(FormatError, match="'query'"):
        codec.json_of(RecordDict(), "query", 2**20)


def test_payments_are_by_round() -> None:
    assert codec.payments_of(codec.payments_to_json({1: 0.5, 10: 2})) == {1: 0.5, 10: 2.0}


@pytest.mark.parametrize("paid", [None, [], {"": 1.0}, {"-1": 1.0}, {"1.0": 1.0}, {"1": "2"}, {"1": True}], ids=str)
def test_what_are_no_payments_is_a_format_error(paid: Any) -> None:
    with pytest.raises(FormatError, match="payment"):
        codec.payments_of(paid)


@pytest.mark.parametrize("value", [math.nan, math.inf, True, "1", None, [1.0]], ids=str)
def test_what_is_no_finite_number_is_named(value: object) -> None:
    assert codec.finite("loss", 2) == 2.0
    with pytest.raises(FormatError, match="loss"):
        codec.finite("loss", value)


def test_a_message_with_a_field_that_nobody_reads_is_refused() -> None:
    content = RecordDict({"bind": codec.json_record({"asked": 1, "chain": 2, "note": "trust me"})})
    assert codec.json_of(content, "bind", 100)["note"] == "trust me"
    with pytest.raises(FormatError, match="expected the fields asked, chain"):
        codec.json_of(content, "bind", 100, "asked", "chain")
