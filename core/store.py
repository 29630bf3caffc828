"""A run on disk: genesis, records, salts, anchors and sealed artifacts. What is written stays.

    RUN/genesis.json
    RUN/readers.json                            public keys of those who may read the artifacts
    RUN/records/L0000-G0000-R00001-A01.json     signed RoundRecord: lane, generation, round, attempt
    RUN/salts/L0000-G0000-R00001-A01.json       what hides it on the chain; deletable
    RUN/anchors.jsonl, private.jsonl            the commit queues, with the chains' receipts (chain/queue.py)
    RUN/artifacts/                              what is sealed (core/artifacts.py), unless it is stored elsewhere

Genesis, readers, records and salts are copied, sealed, to the artifacts: an auditor can do with those alone.
"""

from collections.abc import Callable, Collection, Iterator
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from core import keys
from core.artifacts import Artifacts
from core.blobs import Blobs, Folder, open_blobs, write
from core.canonical import ZERO_DIGEST, Address, from_json, to_json
from core.errors import FormatError, IntegrityError, RunError, UsageError
from core.keys import Key
from core.ledger import RoundCommitment
from core.readers import Readers
from core.rounds import Genesis, RoundRecord, Salts, SignedRecord, commit_to

T = TypeVar("T")


class RunFolder:
    """One run's files. Reading is free for everyone; writing needs the run's lock (`server_app`)."""

    def __init__(self, folder: Path, store: str = "", key: Key | Path | None = None) -> None:
        """`store`: a folder or URL for the artifacts, "" is beside the records; `key`: a reader's, or its file."""
        self.folder = folder
        self._store = store
        self._key = key

    @property
    def name(self) -> str:
        """The run id."""
        return self.folder.name

    @property
    def started(self) -> bool:
        """Whether a genesis was written."""
        return (self.folder / "genesis.json").exists()

    @property
    def started_at(self) -> float:
        """When the genesis was written, in seconds since the epoch."""
        return (self.folder / "genesis.json").stat().st_mtime

    @cached_property
    def genesis(self) -> Genesis:
        """The genesis; raises UsageError when there is none."""
        if not self.started:
            raise UsageError(f"run {self.name} has no genesis in {self.folder}: it never started")
        return _read(self.folder / "genesis.json", Genesis.from_dict)

    @cached_property
    def readers(self) -> Readers:
        """The public keys of those who may read; raises IntegrityError when the file is missing or malformed."""
        return _read(self.folder / "readers.json", Readers.from_dict)

    @cached_property
    def blobs(self) -> Blobs:
        """Where the artifacts are; raises ConfigError for a URL that cannot be opened."""
        return open_blobs(self._store) if self._store else Folder(self.folder / "artifacts")

    @cached_property
    def artifacts(self) -> Artifacts:
        """The sealed store, read with `key`."""
        return Artifacts(self.blobs, self.genesis.salt, self.readers, self.key)

    @property
    def key(self) -> Key | None:
        """The reader's key that was given, else the coordinator's where anybody can derive it, else None.

        Raises UsageError when its file cannot be read.
        """
        if self._key is not None:
            return keys.read(self._key) if isinstance(self._key, Path) else self._key
        derived = keys.derive(self.genesis.seed, "coordinator")
        return derived if derived.address == self.genesis.coordinator else None

    def read_with(self, key: Key | Path | None) -> "RunFolder":
        """The same run, read with another key, or with its own when that is None."""
        return RunFolder(self.folder, self._store, key or self._key)

    def begin(self, genesis: Genesis, readers: Readers) -> None:
        """Write genesis and readers; raises RunError when the run has a genesis already."""
        if self.started:
            raise RunError(f"run {self.name} has a genesis already")
        write(self.folder / "readers.json", to_json(readers.to_dict()))
        write(self.folder / "genesis.json", to_json(genesis.to_dict()))
        self._copy("readers.json")
        self._copy("genesis.json")

    def complete_copies(self) -> None:
        """Store the sealed copies of documents that a crash has left out."""
        for name in ("readers.json", "genesis.json"):
            self._copy(name)
        for signed in self.records():
            self._copy_round(signed.record)

    def append(self, signed: SignedRecord, salts: Salts) -> None:
        """Write a record, its salts first: a record without salts could never be committed.

        A round that admitted nothing is never committed and has no salts.
        """
        name = _record_name(signed.record)
        if (path := self.folder / "records" / name).exists():
            raise RunError(f"record {name} exists already and is never rewritten")
        if signed.record.admitted:
            write(self.folder / "salts" / name, to_json(salts.to_dict()))
        write(path, to_json(signed.to_dict()))
        self._copy_round(signed.record)

    def records(self) -> Iterator[SignedRecord]:
        """All records, by lane, generation, round and attempt."""
        for path in sorted((self.folder / "records").glob("L*.json")):
            yield _read(path, SignedRecord.from_dict)

    def history(self, lane: int) -> list[SignedRecord]:
        """The lane's rounds that admitted something, in order: its lineage."""
        return [s for s in self.records() if s.record.lane == lane and s.record.admitted]

    def commitment(self, record: RoundRecord) -> RoundCommitment:
        """What the chain is told of a record; raises IntegrityError when a salt is missing."""
        before = self._closed(record.lane, record.generation, record.round - 1)
        parent = self.salts(before).aggregate_commitment(before) if before else ZERO_DIGEST
        return commit_to(record, self.salts(record), parent)

    def _closed(self, lane: int, generation: int, number: int) -> RoundRecord | None:
        """The record that closed a round: its last attempt."""
        last: Path | None = None
        for attempt in count(1):
            path = self.folder / "records" / f"{_place(lane, generation, number)}-A{attempt:02}.json"
            if not path.exists():
                break
            last = path
        return _read(last, SignedRecord.from_dict).record if last else None

    def salts(self, record: RoundRecord) -> Salts:
        """The salts of a record; raises IntegrityError when they are missing."""
        return _read(self.folder / "salts" / _record_name(record), Salts.from_dict)

    @property
    def queue(self) -> Path:
        """The file of the commit queue: every commitment on its way to the chain, and the chain's receipts."""
        return self.folder / "anchors.jsonl"

    @property
    def private_queue(self) -> Path:
        """The file of the commit queue of the private chain."""
        return self.folder / "private.jsonl"

    def _copy_round(self, record: RoundRecord) -> None:
        """Seal a record and its salts for its lane."""
        name, lane = _record_name(record), self.genesis.lanes[record.lane]
        if record.admitted:
            self._copy(f"salts/{name}", lane)
        self._copy(f"records/{name}", lane)

    def _copy(self, name: str, members: Collection[Address] | None = None) -> None:
        self.artifacts.put_document(name, (self.folder / name).read_bytes(), members)


def _place(lane: int, generation: int, number: int) -> str:
    return f"L{lane:04}-G{generation:04}-R{number:05}"


def _record_name(record: RoundRecord) -> str:
    return f"{_place(record.lane, record.generation, record.round)}-A{record.attempt:02}.json"


def _read(path: Path, parse: Callable[[Any], T]) -> T:
    try:
        return parse(from_json(path.read_bytes()))
    except OSError as error:
        raise IntegrityError(f"{path.name} cannot be read: {error.strerror}") from error
    except FormatError as error:
        raise IntegrityError(f"{path.name}: {error}") from error
