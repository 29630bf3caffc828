"""Failures for people: the first ones in a table, the others counted."""

from chain.audit.report import Failure
from console.views.failures import listed
from tests.console.views.printed import printed


def failures(count: int) -> list[Failure]:
    return [Failure("shape", f"records/R{index:05}", f"got {index}", "(2, 3)") for index in range(count)]


def test_nothing_is_listed_when_nothing_failed() -> None:
    assert list(listed([])) == []


def test_the_first_ten_are_listed_and_the_others_counted() -> None:
    text = printed(listed(failures(13)))
    assert [f"got {index} " in text for index in range(13)] == [True] * 10 + [False] * 3
    assert "expected" in text
    assert "and 3 more; --json lists them all" in text
    assert "more" not in printed(listed(failures(10)))


def test_a_failure_may_quote_hostile_bytes() -> None:
    text = printed(listed([Failure("record", "[red]x", "\x1b[2J", "JSON")]))
    assert "[red]x" in text
    assert "\x1b" not in text
