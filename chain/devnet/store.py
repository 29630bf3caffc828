"""The key-value store under an embedded chain: an sqlite3 file, with one transaction a block.

A block is in the synced write-ahead log before `commit` returns (journal_mode WAL, synchronous FULL): kill -9 loses
nothing that was committed, and a torn end of the log costs the last commit alone. sqlite3 checks its log but not its
pages, so every value carries a CRC-32 of its pair.
"""

import sqlite3
import zlib
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from core.errors import IntegrityError

_OPENING: Final = (
    "PRAGMA locking_mode = EXCLUSIVE",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "CREATE TABLE IF NOT EXISTS pairs (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    "BEGIN",
)


class Store(MutableMapping[bytes, bytes]):
    """A mapping whose changes become durable, all or none, at `commit`. One caller at a time, from any thread.

    Every method raises OSError when the disk refuses, IntegrityError when the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        """Open or create `path`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        with _naming(path):
            # Without an isolation level Python's own, which begins transactions by itself, stays out of the way.
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        for statement in _OPENING:
            self._execute(statement)

    def __getitem__(self, key: bytes) -> bytes:
        row = self._execute("SELECT value FROM pairs WHERE key = ?", key).fetchone()
        if row is None:
            raise KeyError(key)
        value: bytes = row[0][:-4]
        if row[0] != _checked(key, value):
            raise IntegrityError(f"{self._path} is damaged: the value of key {key.hex()} has another checksum")
        return value

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self._execute("INSERT OR REPLACE INTO pairs VALUES (?, ?)", key, _checked(key, value))

    def __delitem__(self, key: bytes) -> None:
        if not self._execute("DELETE FROM pairs WHERE key = ?", key).rowcount:
            raise KeyError(key)

    def __iter__(self) -> Iterator[bytes]:
        return (key for (key,) in self._execute("SELECT key FROM pairs"))

    def __len__(self) -> int:
        (count,) = self._execute("SELECT COUNT(*) FROM pairs").fetchone()
        return int(count)

    def commit(self) -> None:
        """Make every change since the last commit durable; a store whose commit failed must be closed."""
        self._execute("COMMIT")
        self._execute("BEGIN")

    def close(self) -> None:
        """Close the file; changes that were not committed are gone."""
        self._connection.close()

    def _execute(self, statement: str, *parameters: bytes) -> sqlite3.Cursor:
        with _naming(self._path):
            return self._connection.execute(statement, parameters)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Say of an error of sqlite3 where it happened, and whether the disk or the file is at fault."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise OSError(f"{path}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise IntegrityError(f"{path} is damaged, or no chain: {error}") from error


def _checked(key: bytes, value: bytes) -> bytes:
    return value + zlib.crc32(key + value).to_bytes(4, "little")
