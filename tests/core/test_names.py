"""Names of organisations: one alphabet, no look-alikes, no addresses; refused wherever they come from."""

from pathlib import Path
from typing import Any

import pytest

from core.errors import DataError, FormatError
from core.genesis import Genesis
from core.names import check_distinct, listed, organisation_name
from core.update import Registration
from llm.data import read_folder
from tests import federation as f

HOSTILE = [
    "",
    " clinic",
    "clinic ",
    ".hidden",
    "-rf",
    "a" * 65,
    "m\u0435dical",
    "caf\u00e9",
    "cafe\u0301",
    "\uff21cme",
    "\x1b]0;owned\x07\x1b[2J",
    "[link=https://evil.example]medical[/link]",
    "[/x]",
    "a\n\n| x | y |",
    "<script>alert(1)</script>",
    "\u202elacidem",
    "0x" + "11" * 20,
    7,
    None,
]


@pytest.mark.parametrize("value", HOSTILE, ids=map(ascii, HOSTILE))
def test_what_is_no_name_is_refused_in_registration_and_genesis(value: Any) -> None:
    with pytest.raises(FormatError, match="name"):
        organisation_name(value)
    plain = f.genesis().to_dict()
    plain["organisations"] = [plain["organisations"][0] | {"name": value}]
    with pytest.raises(FormatError, match="name"):
        Genesis.from_dict(plain)
    registration = f.registration(f.genesis().organisations[0], f.other("challenge")).value.to_dict()
    registration["organisation"] = registration["organisation"] | {"name": value}
    with pytest.raises(FormatError, match="name"):
        Registration.from_dict(registration)


@pytest.mark.parametrize("value", ["a", "St. Marys 2", "clinic_north-2", "0xfeed", "a" * 64, "organisation-007"])
def test_plain_names_are_names(value: str) -> None:
    assert organisation_name(value) == value


def test_of_many_names_the_first_are_told_and_how_many_others_there_are() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed(map(str, range(1000)), 3) == "0, 1, 2 and 997 others"


@pytest.mark.parametrize("names", [["medical", "medical"], ["medical", "Medical"], ["a", "B", "b"]])
def test_names_differ_in_more_than_case(names: list[str]) -> None:
    with pytest.raises(FormatError, match="expected each once, in any case"):
        check_distinct(names)
    plain = f.genesis().to_dict()
    for member, name in zip(plain["organisations"], names, strict=False):
        member["name"] = name
    with pytest.raises(FormatError, match="expected each once"):
        Genesis.from_dict(plain)


@pytest.mark.parametrize("names", [["clinic [north]", "store"], ["Store", "store"], ["caf\u00e9", "store"]])
def test_a_folder_of_such_names_is_refused_before_anything_runs(tmp_path: Path, names: list[str]) -> None:
    lines = [f'{{"question": "What is on shelf {i}?", "answer": "Box {i}."}}\n' for i in range(4)]
    for name in names:
        (tmp_path / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    with pytest.raises(DataError, match="rename"):
        read_folder(tmp_path)
