"""Names of organisations: short, ASCII, told apart at sight, and never what an address looks like.

They stand in the genesis, in tables, pages, model cards and file names, so their alphabet has no letter that looks like
another's, no second Unicode form (all of it is stable under NFKC), and nothing that a terminal, rich, Markdown or HTML
reads as its own.
"""

import re
from collections.abc import Iterable
from typing import Final, NewType

from core.errors import FormatError

Name = NewType("Name", str)

ALPHABET: Final = "1 to 64 of A-Z a-z 0-9 space . _ -, a letter or digit first and no space last"
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._-]{0,62}[A-Za-z0-9._-])?")
RUN_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What a run is called: it is the name of a folder, too."""
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")


def organisation_name(value: object) -> Name:
    """The value as a name; raises FormatError when it is none."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise FormatError(f"name of an organisation: expected {ALPHABET}, got {value!r:.140}")
    if _ADDRESS.fullmatch(value):
        raise FormatError(f"name of an organisation: expected a name, got the address {value}")
    return Name(value)


def listed(names: Iterable[str], most: int = 12) -> str:
    """Names by commas; of more than `most` the first, and how many others there are."""
    known = list(names)
    others = f" and {len(known) - most} others" if len(known) > most else ""
    return ", ".join(known[:most]) + others


def check_distinct(names: Iterable[str]) -> None:
    """Raise FormatError for two names that differ in nothing but case."""
    seen: dict[str, str] = {}
    for name in names:
        if (folded := name.casefold()) in seen:
            got = f"{seen[folded]!r} and {name!r}"
            raise FormatError(f"names of organisations: expected each once, in any case, got {got}")
        seen[folded] = name
