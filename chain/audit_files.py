"""Every file of a run, read strictly: a file that no check has asked for is a finding of its own.

A file must be exactly the canonical bytes of what it says, so that there is no place in it that no digest covers.
Links are never followed: what an auditor reads lies in the folder that is audited.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from core.canonical import Digest, from_json, to_json
from core.errors import FormatError

_PLACE = re.compile(r"records/L(\d+)-G(\d+)-R(\d+)-A(\d+)\.json")
_PARTIAL = re.compile(r"\..+\.\d+\.partial")
_ARTIFACT = re.compile(r"artifacts/([0-9a-f]{2})/([0-9a-f]{62})\.safetensors")


class Noun(Protocol):
    """A value with plain data behind it."""

    def to_dict(self) -> dict[str, Any]:
        """The plain data."""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Parse plain data; raises FormatError."""


N = TypeVar("N", bound=Noun)


@dataclass(frozen=True, order=True)
class RecordFile:
    """A file in records/ and the place that its name claims."""

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


class Files:
    """The files under a run's folder, by their path in it, and which of them have been accounted for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        found = (path for path in sorted(folder.rglob("*")) if path.is_symlink() or not path.is_dir())
        self.names = [path.relative_to(folder).as_posix() for path in found]
        self._known = frozenset(self.names)
        self._left = dict.fromkeys(self.names)

    def __contains__(self, name: str) -> bool:
        return name in self._known

    @property
    def left(self) -> list[str]:
        """The files that no check has asked for yet."""
        return list(self._left)

    def take(self, name: str) -> Path:
        """Account for a file; raises FormatError for a link."""
        self._left.pop(name, None)
        if (path := self.folder / name).is_symlink():
            raise FormatError(f"{name} is a link")
        return path

    def read(self, name: str, noun: type[N]) -> N:
        """A noun from its canonical JSON; raises FormatError for any other bytes, OSError when there are none."""
        data = self.take(name).read_bytes()
        value = noun.from_dict(from_json(data))
        if to_json(value.to_dict()) != data:
            raise FormatError(f"has fields that no {noun.__name__} has")
        return value

    def records(self) -> list[RecordFile]:
        """The files in records/ whose name is one, by lane, generation, round and attempt."""
        found = []
        for name in self.names:
            if match := _PLACE.fullmatch(name):
                lane, generation, number, attempt = map(int, match.groups())
                found.append(RecordFile(lane, generation, number, attempt, name))
        return sorted(found)

    def recorded_since(self, lane: int, generation: int, number: int) -> bool:
        """Whether a round has a record that came after the files were listed, as a run in progress writes them."""
        pattern = f"records/L{lane:04}-G{generation:04}-R{number:05}-A*.json"
        return any(path.relative_to(self.folder).as_posix() not in self for path in self.folder.glob(pattern))


def salts_name(lane: int, generation: int, number: int, attempt: int) -> str:
    """Where the salts of a record lie."""
    return f"salts/L{lane:04}-G{generation:04}-R{number:05}-A{attempt:02}.json"


def is_partial(name: str) -> bool:
    """Whether a file is what a crashed write leaves: never read by anyone, and no part of the record."""
    return bool(_PARTIAL.fullmatch(name.rpartition("/")[2]))


def artifact_path(name: Digest) -> str:
    """Where an artifact lies in its run."""
    return f"artifacts/{name[2:4]}/{name[4:]}.safetensors"


def artifact_digest(name: str) -> Digest | None:
    """The digest that an artifact's path claims; None when it is no artifact."""
    match = _ARTIFACT.fullmatch(name)
    return Digest(f"0x{match[1]}{match[2]}") if match else None
