"""Results for people: foreign text stays text, and without a terminal nothing but text is printed."""

import json

import pytest

from console.views.tables import MOST_ROWS, WIDTH, answer, screen, short, table
from tests.console.views.printed import printed

HOSTILE = "[red]\x1b[31mEvil[/red]\u202e"


def test_markup_and_control_characters_in_foreign_text_are_shown_and_not_obeyed() -> None:
    text = printed([table(f"of {HOSTILE}", ("name", HOSTILE), [(HOSTILE, 1.5)]), f"line {HOSTILE}"])
    assert text.count("[red]�[31mEvil[/red]�") == 4
    assert "\x1b" not in text


def test_on_a_terminal_foreign_text_brings_no_codes_either() -> None:
    text = printed([table("of", ("name",), [(HOSTILE,)]), f"line {HOSTILE}"], coloured=True)
    assert "\x1b[31m" not in text
    assert "\x1b[2J" not in text


def test_of_a_thousand_rows_the_first_are_shown_and_how_many_others_there_are() -> None:
    text = printed([table("t", ("name", "count"), ((f"n{number}", number) for number in range(1000)))])
    assert f"n{MOST_ROWS - 1} " in text
    assert f"n{MOST_ROWS} " not in text
    assert f"… and {1000 - MOST_ROWS} others: --json has all" in text


def test_a_missing_value_is_a_dash_and_numbers_end_where_their_column_ends() -> None:
    rows = printed([table("t", ("name", "count"), [("a", 7), ("b", 12345), ("c", None)], numbers=("count",))])
    cells = [line.replace("│", "|").split("|")[2] for line in rows.splitlines() if line.startswith("│")]
    assert cells == ["     7 ", " 12345 ", "     – "]


def test_without_a_terminal_a_table_has_a_fixed_width_and_loses_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 300
    answer({}, [table("t", ("name",), [(long,)]), long], as_json=False)
    out = capsys.readouterr().out
    assert screen().width == WIDTH
    *rows, line = out.splitlines()
    assert line == long
    assert max(map(len, rows)) <= WIDTH
    assert sum(row.count("x") for row in rows) == 300
    assert "\x1b" not in out


def test_json_is_one_object_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    answer({"a": [HOSTILE]}, [table("t", ("name",), [])], as_json=True)
    out = capsys.readouterr().out
    assert json.loads(out) == {"a": [HOSTILE]}
    assert out.isascii()


def test_a_short_digest_has_both_ends() -> None:
    assert short("0x" + "ab" * 32) == "0xabababab…abab"
    assert short(None) is None
