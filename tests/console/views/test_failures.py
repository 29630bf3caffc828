"""Failures of an audit as a table: the first ten, and how many more there are."""

from chain.audit.report import Failure
from console.views.failures import listed
from tests.console.views.printed import printed


def failures(count: int) -> list[Failure]:
    return [Failure("aggregate", f"round {number}", f"wanted {number}", f"had {number}") for number in range(count)]


def test_nothing_is_shown_of_no_failures() -> None:
    assert list(listed([])) == []


def test_a_failure_is_shown_with_its_place_and_both_values() -> None:
    text = printed(listed(failures(1)))
    assert all(word in text for word in ("aggregate", "round 0", "expected", "wanted 0", "got", "had 0"))
    assert "more" not in text


def test_only_the_first_ten_are_listed() -> None:
    assert "more" not in printed(listed(failures(10)))
    text = printed(listed(failures(13)))
    assert "round 9 " in text
    assert "round 10 " not in text
    assert "and 3 more; --json lists them all" in text
