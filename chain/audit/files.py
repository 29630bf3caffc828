"""Every file of a run and of its store, read strictly: one that no check has asked for is a finding of its own.

A file must be exactly the canonical bytes of its content, so that a digest covers every one of them. Links are never
followed: an auditor reads in the audited folder only.
"""

import re
from collections.abc import Callable, KeysView
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from core.canonical import Address, from_json, to_json
from core.errors import FormatError
from core.parsing import in_words
from core.signed import Signed, Statement
from core.storage.artifacts import KEYS, SEALED
from core.storage.blobs import Folder
from core.storage.run_folder import RunFolder, certificate_name, erasure_name, generation_name

_RECORD = re.compile(r"records/L(\d+)-G(\d+)-R(\d+)-A(\d+)\.json")
_GENERATION = re.compile(r"generations/L(\d+)-G(\d+)\.json")
_DOCUMENT = re.compile(
    r"(?:genesis|readers|founding|calibration|pruned)\.json"
    r"|(?:generations|memberships|erasures|certificates)/L\d+-G\d+\.json"
    r"|(?:records|salts)/L\d+-G\d+-R\d+-A\d+\.json|credits/L\d+-G\d+-R\d+\.json|epochs/E\d+\.json"
)
_MEMBERSHIP = re.compile(r"memberships/L(\d+)-G(\d+)\.json")
_ERASURE = re.compile(r"erasures/L(\d+)-G(\d+)\.json")
_PARTIAL = re.compile(r"\..+\.\d+\.partial")
_BLOCK = re.compile(r"artifacts/(blocks/[0-9a-f]{2}/[0-9a-f]{62})\.(?:sealed|keys)")
_COPY = re.compile(r"artifacts/((?!blocks/).+)\.(?:sealed|keys)")

_GROUP = re.compile(r"artifacts/groups/(0x[0-9a-fA-F]{40})\.keys")


class Noun(Protocol):
    """A value that can be written as plain data."""

    def to_dict(self) -> dict[str, Any]:
        """The plain data."""


N = TypeVar("N", bound=Noun)
S = TypeVar("S", bound=Statement)


@dataclass(frozen=True, order=True)
class RecordFile:
    """A file in records/ and the round and attempt that its name claims."""

    lane: int
    generation: int
    round: int
    attempt: int
    name: str = field(compare=False)

    @property
    def where(self) -> str:
        """The round for a finding."""
        return f"round {self.round}, lane {self.lane}"

    @property
    def salts(self) -> str:
        """The file of the record's salts."""
        return self.name.replace("records/", "salts/")


@dataclass(frozen=True, order=True)
class GenerationFile:
    """A file in generations/ and the generation that its name claims."""

    lane: int
    generation: int
    name: str = field(compare=False)

    @classmethod
    def of(cls, lane: int, generation: int) -> Self:
        """The file of the record that opened a generation."""
        return cls(lane, generation, generation_name(lane, generation))


@dataclass(frozen=True, order=True)
class ErasureFile:
    """A file in erasures/ and the generation that its name claims."""

    lane: int
    generation: int
    name: str = field(compare=False)

    @classmethod
    def of(cls, lane: int, generation: int) -> Self:
        """The file of the attestation of the erasure that opens a generation."""
        return cls(lane, generation, erasure_name(lane, generation))

    @property
    def certificate(self) -> str:
        """The file of the erasure's certificate."""
        return certificate_name(self.lane, self.generation)


class Files:
    """The files of a run by their path in its folder, and which of them have been accounted for.

    The store's content has names under ``artifacts/``, wherever the store is. It is listed last: a block is written
    before the record that names it, and so cannot seem to be missing because it came later.
    """

    def __init__(self, run: RunFolder) -> None:
        self.folder = run.folder
        beside = isinstance(run.blobs, Folder) and run.blobs.folder.is_relative_to(run.folder)
        own = [name for name in Folder(run.folder).names() if not (beside and name.startswith("artifacts/"))]
        self.names = own + [f"artifacts/{name}" for name in run.blobs.names()]
        self._known = frozenset(self.names)
        self._left = dict.fromkeys(self.names)

    def __contains__(self, name: str) -> bool:
        return name in self._known

    @property
    def left(self) -> KeysView[str]:
        """The files that no check has asked for yet."""
        return self._left.keys()

    def take(self, name: str) -> Path:
        """Account for a file; raises FormatError for a link."""
        self._left.pop(name, None)
        if (path := self.folder / name).is_symlink():
            raise FormatError(f"{name} is a link")
        return path

    def read(self, name: str, parse: Callable[[Any], N]) -> N:
        """A noun from its canonical JSON; raises FormatError for any other bytes, OSError when there are none."""
        data = self.take(name).read_bytes()
        value = parse(from_json(data))
        # A parser may drop what it does not know, which no digest would cover then.
        if to_json(value.to_dict()) != data:
            raise FormatError(f"{in_words(type(value))}: expected its own fields, got others")
        return value

    def read_signed(self, name: str, noun: type[S]) -> Signed[S]:
        """A signed noun from its canonical JSON; raises as `read` does."""
        return self.read(name, partial(Signed.parse, noun))

    def take_sealed(self, blob: str) -> None:
        """Account for something in the store and its keys."""
        for suffix in (SEALED, KEYS):
            self._left.pop(f"artifacts/{blob}{suffix}", None)

    def documents(self) -> list[str]:
        """The files of the run folder of which the store has a sealed copy."""
        return [name for name in self.names if is_document(name)]

    def records(self) -> list[RecordFile]:
        """The files in records/ whose name is one, by lane, generation, round and attempt."""
        matches = (match for name in self.names if (match := _RECORD.fullmatch(name)))
        return sorted(
            RecordFile(int(match[1]), int(match[2]), int(match[3]), int(match[4]), match[0]) for match in matches
        )

    def generations(self) -> list[GenerationFile]:
        """The files in generations/ whose name is one, by lane and generation."""
        matches = (match for name in self.names if (match := _GENERATION.fullmatch(name)))
        return sorted(GenerationFile(int(match[1]), int(match[2]), match[0]) for match in matches)

    def memberships(self) -> list[str]:
        """The files in memberships/ whose name is one, by generation and lane."""
        matches = (match for name in self.names if (match := _MEMBERSHIP.fullmatch(name)))
        return [match[0] for match in sorted(matches, key=lambda match: (int(match[2]), int(match[1])))]

    def erasures(self) -> list[ErasureFile]:
        """The files in erasures/ whose name is one, by lane and generation."""
        matches = (match for name in self.names if (match := _ERASURE.fullmatch(name)))
        return sorted(ErasureFile(int(match[1]), int(match[2]), match[0]) for match in matches)

    def recorded_since(self, lane: int, generation: int, number: int) -> bool:
        """Whether a round has a record that came after the files were listed, as a run in progress writes them."""
        pattern = f"records/L{lane:04}-G{generation:04}-R{number:05}-A*.json"
        return any(path.relative_to(self.folder).as_posix() not in self for path in self.folder.glob(pattern))


def is_document(name: str) -> bool:
    """Whether a file of the run folder is a document, of which the store has a sealed copy."""
    return bool(_DOCUMENT.fullmatch(name))


def salts_name(lane: int, generation: int, number: int, attempt: int) -> str:
    """The file of a record's salts."""
    return f"salts/L{lane:04}-G{generation:04}-R{number:05}-A{attempt:02}.json"


def is_partial(name: str) -> bool:
    """Whether a file was left by a crashed write: never read by anyone, and no part of the record."""
    return bool(_PARTIAL.fullmatch(name.rpartition("/")[2]))


def generation_of(name: str) -> tuple[int, int] | None:
    """The lane and generation that a document is of; None when it is of all."""
    match = re.search(r"/L(\d+)-G(\d+)", name)
    return (int(match[1]), int(match[2])) if match else None


def block_of(name: str) -> str | None:
    """The name in the store of the block that a file holds; None when it holds none."""
    match = _BLOCK.fullmatch(name)
    return match[1] if match else None


def group_of(name: str) -> Address | None:
    """The group of readers whose wrapped key a file in the store holds; None when it holds none."""
    match = _GROUP.fullmatch(name)
    return Address(match[1]) if match else None


def copied_document(name: str) -> str | None:
    """The document of which a file in the store is a sealed copy; None when it is none."""
    match = _COPY.fullmatch(name)
    return f"{match[1]}.json" if match else None
