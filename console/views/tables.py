"""How a command prints its result: one JSON object, or tables and lines for people.

Everything but JSON may hold foreign text, so nothing is read as markup and control characters are replaced. Without a
terminal there are no colours, and tables are as wide as `WIDTH` allows.
"""

import json
import sys
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from core.escape import visible

WIDTH = 120
"""Columns where there is no terminal to ask."""
MOST_ROWS = 40
"""Of a table: nobody reads a thousand."""


def screen(*, stderr: bool = False) -> Console:
    """The console on stdout, or on stderr."""
    console = Console(stderr=stderr, markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = WIDTH
    return console


def table(
    title: str, headings: Sequence[str], rows: Iterable[Sequence[object]], numbers: Collection[str] = ()
) -> Group:
    """A line and a table of text; columns whose headings are in `numbers` are aligned to the right, None is a dash.

    Of more rows than `MOST_ROWS` the first are shown, and how many others there are.
    """
    made = Table()
    for heading in headings:
        made.add_column(Text(visible(heading)), justify="right" if heading in numbers else "left", overflow="fold")
    known = list(rows)
    for row in known[:MOST_ROWS]:
        made.add_row(*(Text("–" if cell is None else visible(str(cell))) for cell in row))
    if others := len(known[MOST_ROWS:]):
        made.add_row(Text(f"… and {others} others: --json has all"))
    return Group(Text(visible(title), "bold"), made)  # rich would wrap a title of the table to the table's width


def short(digest: str | None) -> str | None:
    """A digest's ends, enough to recognise it by."""
    return f"{digest[:10]}…{digest[-4:]}" if digest else None


def show(*parts: RenderableType, on: Console | None = None) -> None:
    """Print tables and lines on stdout; a line is never broken, so that digests and paths can be copied."""
    console = on or screen()
    for part in parts:
        if isinstance(part, str):
            # Text, and not a string, so that no console reads markup, emoji or links in it.
            console.print(Text(visible(part)), soft_wrap=True)
        else:
            console.print(part)


def answer(result: dict[str, Any], parts: Iterable[RenderableType], *, as_json: bool) -> None:
    """Print a result as one JSON object, or as tables and lines for people."""
    if as_json:
        sys.stdout.write(json.dumps(result, allow_nan=False) + "\n")
    else:
        for part in parts:  # one by one: some are a while in the making
            show(part)
