"""The records that an organisation has erased from a federation: it trains as if they had never been there.

    forgotten/GENESIS/ADDRESS.json      {digest of a record: how often its data held it}

The note holds digests and counts: so a record that is still in the files, or comes back, is not learnt again, and the
organisation goes on under the number of examples that it registered. Its files are its own to clean.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from core.canonical import Digest, from_json, raw, to_json
from core.errors import FormatError
from core.storage.blobs import write
from llm.records import Record


@dataclass(frozen=True)
class ErasedRecords:
    """One organisation's note for one federation, in its own state folder."""

    path: Path

    def counts(self) -> dict[Digest, int]:
        """How often each erased record was in the data; raises FormatError when the note is damaged."""
        if not self.path.exists():
            return {}
        noted = from_json(self.path.read_bytes())
        if not isinstance(noted, dict) or not all(type(count) is int and count > 0 for count in noted.values()):
            raise FormatError(f"{self.path} is damaged: expected counts of at least 1 by record digest, got {noted!r}")
        for record in noted:
            raw(record)
        return noted

    def note(self, held: Mapping[Digest, int]) -> None:
        """Add records, durably; raises RunError when that cannot be written."""
        write(self.path, to_json(self.counts() | dict(held)))

    def left(self, records: Iterable[Record]) -> tuple[Record, ...]:
        """The records that are not erased, in their order."""
        gone = self.counts()
        # Without an erasure no record has to be hashed, which costs seconds for large data.
        return tuple(record for record in records if not gone or record.digest not in gone)
