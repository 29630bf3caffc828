"""Foreign text made harmless where it is printed: names, reasons, settings and answers come from elsewhere.

The one place for it. A rich table or line takes `visible` text as a `rich.text.Text`, which knows no markup; HTML pages
are rendered by a template engine that escapes whatever it is given (provenance/page.py).
"""

import re
from typing import Final

_MARKDOWN: Final = re.compile(r"([\\`*_{}\[\]<>()#+!|~&-])")
_URL: Final = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]*)://([^\s/?#'\"]*)([^\s?#'\")\],]*)(\?[^\s'\")\],]*)?")
_LONGEST: Final = 300


def visible(text: str) -> str:
    """Text for a terminal: tabs expanded; of what does not print, only line ends stay, the rest becomes �."""
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in text.expandtabs(4))


def one_line(text: str) -> str:
    """Text for a log or a record: cut to 300 characters, and what does not print spelt out."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:_LONGEST])


def redacted(text: str) -> str:
    """Text in which no URL shows a password, a token or a key.

    Those stand before the host, in the query, or, of web services, in the path.
    """

    def shown(url: re.Match[str]) -> str:
        scheme, authority, path, query = url.groups(default="")
        if scheme.lower() in ("http", "https", "ws", "wss") and path.strip("/"):
            path = "/…"
        return f"{scheme}://{authority.rpartition('@')[2]}{path}{'?…' if query else ''}"

    return _URL.sub(shown, text)


def markdown(text: str) -> str:
    """Text for a Markdown document or table: one line, in which no character is markup."""
    return _MARKDOWN.sub(r"\\\1", one_line(text))
