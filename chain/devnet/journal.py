"""An append-only key-value file: one checksummed, fsynced record per commit, held in memory while open.

    file   = magic ‖ record*                                 (little-endian)
    record = u32 length ‖ u32 complement of length ‖ body ‖ u32 CRC-32 of body
    body   = (u32 key length ‖ u32 value length ‖ key ‖ value)*    value length 0xFFFFFFFF: the key is deleted

A process that dies while it writes leaves the beginning of a record, or zeros in its place, at the end of the file: it
is cut off on opening, so that at most the last commit is lost, never an earlier one. Anything else that does not check
is damage, not a torn write, and is refused.
"""

import os
import struct
import zlib
from collections.abc import Iterator, MutableMapping
from pathlib import Path

from core.errors import IntegrityError

MAGIC = b"foedus/journal/v1\0"
_ALL_BITS = _DELETED = 0xFFFFFFFF
_PAIR = struct.Struct("<II")
_WORD = struct.Struct("<I")


class Journal(MutableMapping[bytes, bytes]):
    """A mapping whose changes become durable, all or none, at `commit`. One writer at a time; the caller locks."""

    def __init__(self, path: Path) -> None:
        """Open or create `path`. Raises IntegrityError when it is damaged or no journal."""
        self._path = path
        self._values: dict[bytes, bytes] = {}
        self._pending: list[bytes] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        self._size = self._load(path.read_bytes() if path.exists() else b"")
        self._file = path.open("ab")
        self._file.truncate(self._size)
        if self._size == 0:
            self._append(MAGIC)

    def __getitem__(self, key: bytes) -> bytes:
        return self._values[key]

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self._values[key] = value
        self._pending.append(_PAIR.pack(len(key), len(value)) + key + value)

    def __delitem__(self, key: bytes) -> None:
        del self._values[key]
        self._pending.append(_PAIR.pack(len(key), _DELETED) + key)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def commit(self) -> None:
        """Make every change since the last commit durable, as one record.

        Raises OSError when the disk refuses; what is in memory is then ahead of the file and must be given up.
        """
        body = b"".join(self._pending)
        header = _PAIR.pack(len(body), len(body) ^ _ALL_BITS)
        self._append(header + body + _WORD.pack(zlib.crc32(body)))
        self._pending.clear()

    def close(self) -> None:
        """Close the file; changes that were not committed are gone."""
        self._file.close()

    def _append(self, data: bytes) -> None:
        self._file.write(data)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._size += len(data)

    def _load(self, data: bytes) -> int:
        """Read every whole record; returns the length of the part that is whole."""
        if len(data) < len(MAGIC) and MAGIC.startswith(data):
            return 0
        if not data.startswith(MAGIC):
            raise IntegrityError(f"{self._path} is not a journal")
        position = len(MAGIC)
        while (body := self._record_at(data, position)) is not None:
            self._apply(body)
            position += _PAIR.size + len(body) + _WORD.size
        return position

    def _record_at(self, data: bytes, position: int) -> bytes | None:
        """The body of the record at `position`; None when the file ends before the record does."""
        start = position + _PAIR.size
        if start > len(data) or not any(data[position:]):
            return None
        length, complement = _PAIR.unpack_from(data, position)
        end = start + length
        if length ^ complement != _ALL_BITS:
            raise IntegrityError(f"{self._path} is damaged at byte {position}")
        if end + _WORD.size > len(data):
            return None
        if _WORD.unpack_from(data, end)[0] != zlib.crc32(data[start:end]):
            if end + _WORD.size < len(data):
                raise IntegrityError(f"{self._path} is damaged at byte {position}")
            return None
        return data[start:end]

    def _apply(self, body: bytes) -> None:
        position = 0
        while position < len(body):
            key_length, value_length = _PAIR.unpack_from(body, position)
            position += _PAIR.size
            key = body[position : position + key_length]
            position += key_length
            if value_length == _DELETED:
                self._values.pop(key, None)
            else:
                self._values[key] = body[position : position + value_length]
                position += value_length
