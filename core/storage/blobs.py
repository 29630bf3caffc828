"""Bytes under names: in a folder, or wherever fsspec reaches.

A folder is written as a run is: a file appears whole or not at all, written beside its place, fsynced, renamed, and the
folder fsynced. Elsewhere that is for the service to promise, as object stores do.
"""

import errno
import mmap
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from core.canonical import LARGEST
from core.errors import ConfigError, FormatError, RunError
from core.escape import redacted


class Blobs(Protocol):
    """A place for bytes under names like ``blocks/ab/cd.sealed``."""

    @property
    def where(self) -> str:
        """The place, for people."""

    def write(self, name: str, parts: Iterable[bytes | memoryview]) -> None:
        """Store bytes whole or not at all, in the place of what was there; raises RunError."""

    def read(self, name: str) -> bytes | memoryview:
        """What is stored under a name; raises OSError, FileNotFoundError when there is nothing."""

    def has(self, name: str) -> bool:
        """Whether something is stored under a name; raises OSError when the place cannot be reached."""

    def remove(self, name: str) -> None:
        """Take a name away for good; one that is not there changes nothing. Raises RunError."""

    def names(self) -> list[str]:
        """Every name there is, sorted; raises OSError when the place cannot be reached."""


class Folder:
    """Blobs in a folder of this machine. Links are not followed: what is read lies in the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def where(self) -> str:
        """See `Blobs.where`."""
        return str(self.folder)

    def write(self, name: str, parts: Iterable[bytes | memoryview]) -> None:
        """See `Blobs.write`."""
        _write(self.folder / name, iter(parts))

    def read(self, name: str) -> bytes | memoryview:
        """See `Blobs.read`; the bytes are memory-mapped."""
        # A link could lead an audit to bytes outside the folder.
        descriptor = os.open(self.folder / name, os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(descriptor, "rb") as file:
            empty = not os.fstat(file.fileno()).st_size  # which cannot be mapped
            return b"" if empty else memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def has(self, name: str) -> bool:
        """See `Blobs.has`."""
        return (self.folder / name).exists()

    def remove(self, name: str) -> None:
        """See `Blobs.remove`; the folder is synced, so that it stays away."""
        path = self.folder / name
        try:
            path.unlink(missing_ok=True)
            if path.parent.exists():
                # Without this, the rename itself may be lost when the machine stops.
                _sync_folder(path.parent)
        except OSError as error:
            raise RunError(f"cannot remove {path}: {os.strerror(error.errno or 0)}") from error

    def names(self) -> list[str]:
        """See `Blobs.names`."""
        # Links are listed although they are not followed: an audit reports them.
        found = (path for path in self.folder.rglob("*") if path.is_symlink() or not path.is_dir())
        return sorted(path.relative_to(self.folder).as_posix() for path in found)


class Remote:
    """Blobs behind an fsspec URL: ``memory:``, ``s3:`` and whatever else is installed."""

    def __init__(self, url: str) -> None:
        """Raises ConfigError when fsspec does not know the URL's scheme, or lacks the package for it."""
        # A run that keeps its artifacts beside it needs none of it.
        from fsspec.core import url_to_fs  # type: ignore[import-untyped] # noqa: PLC0415 - it has no stubs

        try:
            # Without its cache of listings, another machine's new artifact would stay unseen.
            found: tuple[Any, str] = url_to_fs(url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise ConfigError(
                f"store: expected a folder or a URL that fsspec opens, got {redacted(f'{url}: {error}')}"
            ) from error
        self._files, self._root = found
        self.where = redacted(url)

    def write(self, name: str, parts: Iterable[bytes | memoryview]) -> None:
        """See `Blobs.write`."""
        try:
            with self._asking(name):
                self._files.pipe_file(self._at(name), b"".join(parts))
        except OSError as error:
            raise RunError(f"cannot write {name} to {self.where}: {error}") from error

    def read(self, name: str) -> bytes | memoryview:
        """See `Blobs.read`."""
        with self._asking(name):
            return bytes(self._files.cat_file(self._at(name)))

    def has(self, name: str) -> bool:
        """See `Blobs.has`."""
        with self._asking(name):
            return bool(self._files.exists(self._at(name)))

    def remove(self, name: str) -> None:
        """See `Blobs.remove`."""
        try:
            with suppress(FileNotFoundError), self._asking(name):
                self._files.rm_file(self._at(name))
        except OSError as error:
            raise RunError(f"cannot remove {name} from {self.where}: {error}") from error

    def names(self) -> list[str]:
        """See `Blobs.names`."""
        with self._asking("a list of names"):
            found = [PurePosixPath(self._files._strip_protocol(path)) for path in self._files.find(self._root)]
        root = PurePosixPath(self._files._strip_protocol(self._root))
        return sorted(path.relative_to(root).as_posix() for path in found)

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        """Whatever a service's own library raises becomes an OSError."""
        try:
            yield
        except OSError:
            raise
        except Exception as error:
            raise OSError(f"{self.where} gave no {what}: {type(error).__name__}: {redacted(str(error))}") from error

    def _at(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"


def open_blobs(place: str) -> Blobs:
    """The blobs in a folder (a path or ``file:`` URL), or behind another URL; raises ConfigError."""
    if "://" not in place:
        return Folder(Path(place))
    scheme, path = place.split("://", 1)
    return Folder(Path(path)) if scheme == "file" else Remote(place)


def write(path: Path, *parts: bytes | memoryview) -> None:
    """Write a file whole or not at all; raises RunError when the disk is full or refuses."""
    _write(path, iter(parts))


def read(path: Path, most: int = LARGEST) -> bytes:
    """A file's bytes; raises FormatError when it has more than `most`, OSError when it cannot be read."""
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise FormatError(f"expected a file of at most {most} bytes, got {path.stat().st_size}")
    return data


def _write(path: Path, parts: Iterator[bytes | memoryview]) -> None:
    """Write a file part by part, so that no more than one of them need be in memory."""
    size = 0
    # The process id keeps two writers of one name apart; a leftover is no file of the run.
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Private at once, whatever the process's umask: there is no moment at which others could open it.
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            for part in parts:
                size += len(part)
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        size += sum(map(len, parts))
        expected = f"{size} bytes free" if error.errno == errno.ENOSPC else "a writable folder"
        raise RunError(f"cannot write {path}: expected {expected}, got {os.strerror(error.errno or 0)}") from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
