"""The failures of an audit or of a certificate's check, for people."""

from collections.abc import Iterator, Sequence

from rich.console import RenderableType

from chain.audit.report import Failure
from console.views.tables import table

_LISTED = 10
"""Failures in the table; JSON has all of them."""


def listed(failures: Sequence[Failure]) -> Iterator[RenderableType]:
    """A table of the first failures, and how many more there are; nothing when there are none."""
    if failures:
        rows = ((f.what, f.where, f.want, f.got) for f in failures[:_LISTED])
        yield table("Failures", ("what", "where", "expected", "got"), rows)
    if len(failures) > _LISTED:
        yield f"and {len(failures) - _LISTED} more; --json lists them all"
