"""Hashes of structs are those of eth_account, which is another's implementation of EIP-712."""

from typing import Any

import pytest
from eth_account.messages import encode_typed_data

from core.eip712 import Fields, struct_hash
from core.errors import FormatError

FIELDS: Fields = (
    ("who", "address"), ("what", "string"), ("many", "uint32[]"), ("count", "uint64"), ("wide", "uint256"),
    ("digest", "bytes32"), ("data", "bytes"), ("really", "bool"), ("names", "string[]"),
)  # fmt: skip
MESSAGE: dict[str, Any] = {
    "who": "0x5FbDB2315678afecb367f032d93F642f64180aa3", "what": "später", "many": [1, 2, 2**32 - 1],
    "count": 2**64 - 1, "wide": 2**256 - 1, "digest": bytes(range(32)), "data": b"abc", "really": True,
    "names": ["", "a"],
}  # fmt: skip


def theirs(name: str, fields: Fields, message: dict[str, Any]) -> bytes:
    types = {name: [{"name": field, "type": kind} for field, kind in fields]}
    return bytes(encode_typed_data({"name": "x"}, types, message).body)


@pytest.mark.parametrize("field", range(len(FIELDS)), ids=[name for name, _ in FIELDS])
def test_a_struct_of_one_field_has_the_hash_of_others(field: int) -> None:
    fields = (FIELDS[field],)
    message = {fields[0][0]: MESSAGE[fields[0][0]]}
    assert struct_hash("Thing", fields, message) == theirs("Thing", fields, message)


def test_a_struct_of_all_types_has_the_hash_of_others() -> None:
    assert struct_hash("Thing", FIELDS, MESSAGE) == theirs("Thing", FIELDS, MESSAGE)
    empty = MESSAGE | {"many": [], "names": [], "data": b"", "what": "", "really": False, "wide": 0}
    assert struct_hash("Thing", FIELDS, empty) == theirs("Thing", FIELDS, empty)


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("count", 2**64, OverflowError),
        ("count", -1, OverflowError),
        ("count", "1", TypeError),
        ("many", [2**32], OverflowError),
        ("digest", bytes(31), FormatError),
        ("who", "0x" + "11" * 21, OverflowError),
        ("who", "nobody", ValueError),
        ("what", 1, AttributeError),
        ("what", "\ud800", UnicodeEncodeError),
        ("data", None, TypeError),
    ],
)
def test_a_value_that_is_none_of_its_type_has_no_hash(field: str, value: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        struct_hash("Thing", FIELDS, MESSAGE | {field: value})


def test_a_field_that_is_missing_has_no_hash() -> None:
    with pytest.raises(KeyError):
        struct_hash("Thing", FIELDS, {})
