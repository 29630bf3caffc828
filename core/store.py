"""A run on disk: genesis, records, salts, anchors and content-addressed artifacts. What is written stays.

    RUN/genesis.json
    RUN/records/L0000-G0000-R00001-A01.json     signed RoundRecord: lane, generation, round, attempt
    RUN/salts/L0000-G0000-R00001-A01.json       what hides it on the chain; deletable
    RUN/anchors.jsonl                           the commit queue, with the chain's receipts (chain/queue.py)
    RUN/artifacts/ab/cdef….safetensors          an AdapterState under its digest

A file appears whole or not at all: written beside its place, fsynced, renamed, and the folder fsynced.
"""

import errno
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from core.adapter import AdapterState
from core.canonical import ZERO_DIGEST, Digest, digest, from_json, raw, to_json
from core.errors import FormatError, IntegrityError, RunError, UsageError
from core.ledger import RoundCommitment
from core.rounds import Genesis, RoundRecord, Salts, SignedRecord, commit_to

T = TypeVar("T")


def write(path: Path, *parts: bytes | memoryview) -> None:
    """Write a file whole or not at all; raises RunError when the disk is full or refuses."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        size = sum(map(len, parts))
        wanted = f"{size} bytes free wanted" if error.errno == errno.ENOSPC else "a writable folder wanted"
        raise RunError(f"cannot write {path}: {os.strerror(error.errno or 0)}, {wanted}") from error


class Artifacts:
    """AdapterStates by digest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: Digest) -> Path:
        """Where an artifact lies."""
        text = raw(name).hex()
        return self.folder / text[:2] / f"{text[2:]}.safetensors"

    def put(self, state: AdapterState) -> Digest:
        """Store a state; storing it again changes nothing."""
        if not (path := self.path(state.digest)).exists():
            write(path, *state.parts())
        return state.digest

    def open(self, name: Digest) -> AdapterState:
        """A memory-mapped state, its digest checked; pages are read as they are used.

        Raises IntegrityError when it is missing or its bytes have another digest.
        """
        path = self.path(name)
        try:
            with path.open("rb") as file:
                data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except (OSError, ValueError) as error:
            raise IntegrityError(f"artifact {path.name} of {name} cannot be read: {error}") from error
        if (got := digest("adapter", data)) != name:
            raise IntegrityError(f"artifact {path.name} has digest {got}, {name} wanted")
        return AdapterState.from_bytes(data)


class RunFolder:
    """One run's files. Reading is free for everyone; writing needs the run's lock (`server_app`)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.artifacts = Artifacts(folder / "artifacts")

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

    def begin(self, genesis: Genesis) -> None:
        """Write the genesis; raises RunError when the run has one already."""
        if self.started:
            raise RunError(f"run {self.name} has a genesis already")
        write(self.folder / "genesis.json", to_json(genesis.to_dict()))

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


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
