"""Records of Flower's messages that no noun is read from."""

from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from core.canonical import to_json


def config(value: Any) -> ConfigRecord:
    return ConfigRecord({"json": value if isinstance(value, bytes) else to_json(value)})


def with_record(content: RecordDict, **records: Any) -> RecordDict:
    for name, record in records.items():
        if record is None:
            del content[name]
        else:
            content[name] = record
    return content


NOT_JSON: dict[str, Any] = {
    "nothing": None,
    "an array": ArrayRecord({"bytes": Array("uint8", (2,), "safetensors", b"{}")}),
    "text": ConfigRecord({"json": "{}"}),
    "no JSON": config(b"\xff"),
    "JSON with white space": config(b"{ }"),
    "deep JSON": config(b"[" * 10**5),
    "a list": config([]),
    "a number": config(5),
    "an empty object": config({}),
    "another key": ConfigRecord({"data": b"{}"}),
}
"""What may stand where an object is expected; None takes the record out of the message."""
