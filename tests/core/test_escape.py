"""Foreign text that is printed steers no terminal, and is no markup."""

import pytest
from rich.console import Console
from rich.text import Text

from core.escape import markdown, one_line, redacted, visible


@pytest.mark.parametrize("hostile", ["\x1b[2J", "\x07", "\x9b31m", "\u202egnp.exe", "\r"])
def test_foreign_text_cannot_steer_the_terminal(hostile: str) -> None:
    assert visible(f"a{hostile}").isprintable()


def test_line_ends_stay_and_tabs_are_expanded() -> None:
    assert visible("a\tb\nc [bold]") == "a   b\nc [bold]"


def test_a_line_for_logs_is_short_and_prints() -> None:
    assert one_line("\x1b[31mred" + "x" * 1000) == "\\x1b[31mred" + "x" * 292


@pytest.mark.parametrize("hostile", ["a | b", "[x](https://evil.example)", "<script>", "a\n\n| x |", "**b**", "`c`"])
def test_no_character_is_markup_in_markdown(hostile: str) -> None:
    escaped = markdown(hostile)
    assert "\n" not in escaped
    assert all(escaped[i - 1] == "\\" for i, c in enumerate(escaped) if c in "|[]()<>*`#")


def test_rich_takes_visible_text_for_what_it_is() -> None:
    console = Console(force_terminal=False, width=80)
    with console.capture() as shown:
        console.print(Text(visible("[link=https://evil.example]clinic[/link] [/x]")))
    assert shown.get() == "[link=https://evil.example]clinic[/link] [/x]\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at http://user:s3cret@host:9/v3/KEY when", "at http://host:9/… when"),
        ("'https://host/?apikey=KEY'", "'https://host/?…'"),
        ("s3://key:s3cret@bucket/folder?token=KEY", "s3://bucket/folder?…"),
        ("wss://a:p@ss@host/KEY, then", "wss://host/…, then"),
        ("http://127.0.0.1:8545", "http://127.0.0.1:8545"),
        ("s3://bucket/folder", "s3://bucket/folder"),
        ("no URL: a://", "no URL: a://"),
    ],
)
def test_no_url_shows_its_secrets(text: str, shown: str) -> None:
    assert redacted(text) == shown
