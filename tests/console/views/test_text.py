import pytest

from console.views.text import visible


@pytest.mark.parametrize("hostile", ["\x1b[2J", "\x07", "\x9b31m", "\u202egnp.exe", "\r"])
def test_foreign_text_cannot_steer_the_terminal(hostile: str) -> None:
    assert visible(f"a{hostile}").isprintable()


def test_line_ends_stay_and_tabs_are_expanded() -> None:
    assert visible("a\tb\nc [bold]") == "a   b\nc [bold]"
