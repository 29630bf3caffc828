"""What a person sees of a command's tables and lines."""

import io
from collections.abc import Iterable

from rich.console import Console, RenderableType

from console.views.tables import WIDTH, show


def printed(parts: Iterable[RenderableType], *, coloured: bool = False) -> str:
    """Tables and lines as `show` prints them, without a terminal or on one."""
    out = io.StringIO()
    show(*parts, on=Console(file=out, force_terminal=coloured, width=WIDTH, markup=False))
    return out.getvalue()
