"""Nouns from plain data: all fields, no others, each of its type."""

from dataclasses import dataclass
from typing import Any

import pytest

from core.canonical import Address, Digest
from core.errors import FormatError
from core.parsing import parsed, typed


@dataclass(frozen=True)
class Inner:
    count: int


class LongNoun(Inner):
    pass


@dataclass(frozen=True)
class Noun:
    flag: bool
    count: int
    rate: float
    name: str
    digest: Digest
    owner: Address
    inner: Inner
    late: int = 0


DATA: dict[str, Any] = {
    "flag": True,
    "count": 3,
    "rate": 0.5,
    "name": "medical",
    "digest": "0x" + "ab" * 32,
    "owner": "0x5FbDB2315678afecb367f032d93F642f64180aa3",
    "inner": {"count": 1},
    "late": 2,
}


def noun(**changes: Any) -> Noun:
    return parsed(Noun, DATA | changes, {"inner": lambda value: parsed(Inner, value, {})})


def test_a_noun_has_what_the_data_say() -> None:
    assert noun() == Noun(True, 3, 0.5, "medical", Digest(DATA["digest"]), Address(DATA["owner"]), Inner(1), 2)


def test_a_noun_is_called_by_words_of_people_and_not_by_its_class() -> None:
    for fails in (lambda: parsed(LongNoun, {}, {}), lambda: parsed(LongNoun, {"count": "1"}, {})):
        with pytest.raises(FormatError, match="malformed long noun: expected"):
            fails()
    with pytest.raises(FormatError, match="long noun: expected count from 0"):
        typed(LongNoun(-1))
    with pytest.raises(FormatError, match="malformed page: expected"):
        parsed(LongNoun, {}, {}, "page")


def test_a_number_may_be_an_integer_and_a_count_no_number() -> None:
    assert noun(rate=1).rate == 1
    with pytest.raises(FormatError, match=r"int as count, got 3\.0"):
        noun(count=3.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("flag", 1),
        ("count", True),
        ("count", "3"),
        ("rate", True),
        ("rate", "0.5"),
        ("name", 5),
        ("digest", "0x12"),
        ("digest", 5),
        ("owner", "0x12"),
        ("inner", {"count": "1"}),
        ("inner", {}),
        ("inner", 5),
        ("late", None),
    ],
)
def test_a_field_of_another_type_is_refused(field: str, value: Any) -> None:
    with pytest.raises(FormatError):
        noun(**{field: value})


@pytest.mark.parametrize("field", DATA)
def test_no_field_may_be_missing_even_one_with_a_default(field: str) -> None:
    data = {name: value for name, value in DATA.items() if name != field}
    with pytest.raises(FormatError, match=f"malformed noun: expected a field '{field}'"):
        parsed(Noun, data, {"inner": lambda value: parsed(Inner, value, {})})


def test_no_field_may_be_added() -> None:
    with pytest.raises(FormatError, match="malformed noun: expected no field 'more'"):
        noun(more=1)


@pytest.mark.parametrize("data", [[], None, "text", 5])
def test_what_is_no_object_is_refused(data: Any) -> None:
    with pytest.raises(FormatError, match="malformed noun"):
        parsed(Noun, data, {})


def test_types_are_checked_of_nouns_made_elsewhere_too() -> None:
    assert typed(Inner(1)) == Inner(1)
    with pytest.raises(FormatError, match=r"inner.*count"):
        typed(Inner("1"))  # type: ignore[arg-type]
