"""A Griffe extension of mkdocs.yml: docstrings are text for people who read code, and no Markdown.

Brackets, stars and underscores of formulas would become links and emphasis: [A; δA], x*y. What stands between backticks
is code, as in Markdown, and paragraphs that are laid out in columns stay so.
"""

import re
from typing import Any

import griffe

_CODE = re.compile(r"(`+[^`]+`+)")
_MARKUP = re.compile(r"([\[\]*_|#])")


class PlainText(griffe.Extension):
    """Escapes what Markdown would take for markup in the docstrings of whole packages."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """When a package has been loaded, before anything is written."""
        _escape(pkg)


def _escape(item: griffe.Object) -> None:
    if item.docstring:
        item.docstring.value = "\n\n".join(map(_as_markdown, item.docstring.value.split("\n\n")))
    for member in item.members.values():
        if isinstance(member, griffe.Object):
            _escape(member)


def _as_markdown(paragraph: str) -> str:
    """The Markdown that shows a paragraph as it was written."""
    lines = paragraph.splitlines()
    if lines and all("  " in line for line in lines):  # columns, or indented
        return "\n".join(f"    {line}" for line in lines)
    parts = _CODE.split(paragraph)
    parts[::2] = [_MARKUP.sub(r"\\\1", part).replace("<", "&lt;") for part in parts[::2]]
    return "".join(parts)
