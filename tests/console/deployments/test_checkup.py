"""A check says what to do where something is wrong, and whatever goes wrong meanwhile is what it found."""

import pytest

from console.deployments.checkup import Check, check
from core.errors import UsageError


def test_what_is_well_needs_no_advice() -> None:
    assert check("x", "1", "do", lambda: (True, 1)) == Check("x", True, "1", "1", "")
    assert check("x", "1", "do", lambda: (False, 2)) == Check("x", False, "2", "1", "do")


@pytest.mark.parametrize("error", [UsageError("no key"), OSError("no file"), ValueError("no number")])
def test_an_error_is_a_finding(error: Exception) -> None:
    def fail() -> tuple[bool, str]:
        raise error

    assert check("x", "1", "do", fail) == Check("x", False, str(error), "1", "do")
