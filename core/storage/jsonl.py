r"""JSON Lines: append-only files of one canonical JSON value a line, written by one process at a time, read by any.

The rule for torn lines is the same for all of them: a line counts once its newline is written. Bytes behind the last
newline are a line that is being written, or that a dying writer tore: readers leave them out, and the next writer cuts
them off. So an entry is there whole or not at all, a crash costs at most the last one, and whole lines that do not
parse are damage.

    append(path, entry)          one entry, waiting for another writer
    JsonLines(path)              a writer that keeps the file to itself until it is closed
    read(path)                   every entry, or IntegrityError
    read_as(path, parse)         what a parser makes of every entry, or IntegrityError
    read_lines(path, offset)     the whole lines as bytes, for who follows a file or judges each line by itself
"""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from io import SEEK_END
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

from core.canonical import from_json, to_json
from core.errors import FormatError, IntegrityError, RunLockedError
from core.storage.lock import take

T = TypeVar("T")


class Lines(NamedTuple):
    """The whole lines of a file, without their newlines."""

    whole: list[bytes]
    end: int
    """The offset behind the last newline, where reading goes on."""
    torn: bool
    """Whether there are bytes behind it."""


class JsonLines:
    """A writer, which holds the file's lock until it is closed or its process dies."""

    def __init__(self, path: Path, *, wait: bool = False, sync: bool = True) -> None:
        """Open or create `path` and cut off a torn line; with `sync`, entries are on disk when `append` returns.

        With `wait` another writer is waited for; without it, raises RunLockedError while there is one. Raises OSError
        when the folder cannot be written.
        """
        try:
            self._file = take(path, wait=wait)
        except BlockingIOError as error:
            raise RunLockedError(f"{path} is being written by another process: end that first") from error
        self._sync = sync
        try:
            self._cut()
        except BaseException:
            self.close()  # else its lock lasts as long as the error, and the next writer may be this very process
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, entry: Any) -> None:
        """Append an entry; raises FormatError when it is no JSON, OSError when the disk refuses it."""
        line = to_json(entry) + b"\n"
        self._cut()  # a disk that was full for a moment has torn a line of this very writer
        while line:
            line = line[self._file.write(line) :]
        if self._sync:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let the next writer in."""
        self._file.close()

    def _cut(self) -> None:
        size = self._file.seek(0, SEEK_END)
        self._file.seek(max(size - 1, 0))
        if self._file.read(1) not in (b"", b"\n"):
            self._file.seek(0)
            self._file.truncate(_split(self._file.readall()).end)


def append(path: Path, entry: Any, *, sync: bool = True) -> None:
    """Append one entry to `path`, created where it is missing, after any other writer; raises as `JsonLines.append`."""
    with JsonLines(path, wait=True, sync=sync) as file:
        file.append(entry)


def stamp() -> str:
    """The time for an entry that people read, in UTC to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def read(path: Path) -> list[Any]:
    """Every entry of `path`, none when it is missing; raises IntegrityError, which names the line, on damage."""
    return read_as(path, lambda entry: entry)


def read_as(path: Path, parse: Callable[[Any], T]) -> list[T]:
    """What `parse` makes of every entry of `path`; where it fails, the line is damaged, as in `read`."""
    found = []
    for number, line in enumerate(read_lines(path).whole, start=1):
        try:
            found.append(parse(from_json(line)))
        # An entry may be of any type: whatever the parser trips over is one fault.
        except (FormatError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise IntegrityError(f"line {number} of {path} is damaged: {error}") from error
    return found


def read_lines(path: Path, offset: int = 0) -> Lines:
    """The whole lines of `path` from `offset` on, none when it is missing."""
    if not path.exists():
        return Lines([], offset, torn=False)
    with path.open("rb") as file:
        file.seek(offset)
        lines = _split(file.read())
    return lines._replace(end=offset + lines.end)


def _split(data: bytes) -> Lines:
    *whole, rest = data.split(b"\n")
    return Lines(whole, len(data) - len(rest), torn=bool(rest))
