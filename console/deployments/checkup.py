"""A check of `foedus doctor`: what was found, what was expected, and what to do."""

from collections.abc import Callable
from dataclasses import dataclass

from core.errors import FoedusError


@dataclass(frozen=True)
class Check:
    """One line of a report; `advice` says what to do where it is not `ok`."""

    name: str
    ok: bool
    got: str
    expected: str
    advice: str


def check(name: str, expected: str, advice: str, measure: Callable[[], tuple[bool, object]]) -> Check:
    """Measure one thing: whether it is as it should be, and what it is. What goes wrong meanwhile is what it is."""
    try:
        ok, got = measure()
    except (FoedusError, OSError, ValueError) as error:
        ok, got = False, str(error) or type(error).__name__
    return Check(name, ok, str(got), expected, "" if ok else advice)
