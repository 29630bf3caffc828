"""A copy, to be put back, of a folder in use: a state folder, or a coordinator's, a node's or a signer's.

A backup is a tar archive, gzipped, of mode 0600, that ends with `MANIFEST.json`: SHA-256 and size of every file. Files
of a run appear whole or not at all, logs only grow, and what is named is written before what names it; so records are
copied before artifacts, and every artifact that a copied record names is in the copy. Only an erasure takes files away:
a backup that one overtakes is refused. SQLite copies its databases, but for one that is kept locked, as a development
chain keeps its own while it runs. Left out are sockets, links, locks and files that are being written.
"""

import hashlib
import io
import os
import sqlite3
import stat
import tarfile
import tempfile
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from core.canonical import from_json, to_json
from core.errors import FormatError, IntegrityError, RunError, UsageError

MANIFEST = "MANIFEST.json"
"""The last file of an archive."""
_SQLITE, _BESIDE = b"SQLite format 3\0", ("-wal", "-shm", "-journal")
_PIECE = 1 << 20


class Copied(NamedTuple):
    """How many files and bytes a backup holds."""

    files: int
    size: int


def back_up(folder: Path, archive: Path) -> Copied:
    """Copy a folder into an archive.

    Raises UsageError for a folder that is none, an archive in it or an erasure meanwhile, RunError when a file cannot
    be read or the archive not be written.
    """
    if not folder.is_dir():
        raise UsageError(f"expected a folder to back up, got {folder}")
    if archive.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"expected a backup outside {folder}, got {archive}")
    partial = archive.with_name(f".{archive.name}.{os.getpid()}.partial")
    erased, manifest = _erasures(folder), dict[str, Any]()
    try:
        with (
            os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file,
            tarfile.open(fileobj=file, mode="w:gz", format=tarfile.PAX_FORMAT) as tar,
        ):
            for path in _files(folder):
                name = path.relative_to(folder).as_posix()
                with _opened(path) as source:
                    manifest[name] = _add(tar, name, source, os.fstat(source.fileno()).st_size)
            content = to_json({"files": manifest, "format": "foedus/backup/v1"})
            _add(tar, MANIFEST, io.BytesIO(content), len(content))
        if _erasures(folder) != erased:
            raise UsageError(f"expected no erasure while {folder} is backed up, got one: back up again")
        partial.replace(archive)
    except OSError as error:
        raise RunError(f"cannot back up {error.filename or folder}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return Copied(len(manifest), sum(entry["bytes"] for entry in manifest.values()))


def restore(archive: Path, folder: Path) -> Copied:
    """Put a backup back into a folder that is empty or not there, for its user alone.

    Raises UsageError for another folder or a file that cannot be read, FormatError for an archive that is no backup,
    IntegrityError for one whose files are not those of its manifest; then nothing is left of the folder.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"expected an empty folder to restore into, got {folder}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        place = Path(scratch) / "restored"
        place.mkdir(0o700)
        try:
            with tarfile.open(archive, "r:gz") as tar:
                found = {member.name: _extract(tar, member, place) for member in tar}
        except (tarfile.TarError, EOFError, ValueError) as error:
            raise FormatError(f"{archive}: expected a backup, got {error}") from error
        except OSError as error:
            raise UsageError(f"{archive}: expected a backup, got {error.strerror or error}") from error
        _check(place, found, archive)
        for path in place.rglob("*"):
            path.chmod(0o700 if path.is_dir() else 0o600)
        if folder.exists():
            folder.rmdir()
        place.rename(folder)
    return Copied(len(found), sum(entry["bytes"] for entry in found.values()))


def _files(folder: Path) -> list[Path]:
    """The files of a folder, those of artifacts last: they are looked for when all others are listed."""
    found = []
    for artifacts in (False, True):
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder)
            passing = "locks" in name.parts[:-1] or name.name.endswith((".partial", *_BESIDE))
            if not passing and ("artifacts" in name.parts) == artifacts and stat.S_ISREG(path.lstat().st_mode):
                found.append(path)
    return found


def _erasures(folder: Path) -> set[Path]:
    """What an erasure writes before it takes anything away, and after it."""
    return {path for kind in ("erasures", "certificates") for path in folder.rglob(f"runs/*/{kind}/*")}


def _opened(path: Path) -> IO[bytes]:
    """A file to read from; a database as SQLite copies it, since its file alone may lack what was written last."""
    file = path.open("rb")
    if file.read(len(_SQLITE)) != _SQLITE:
        file.seek(0)
        return file
    file.close()
    copy = tempfile.NamedTemporaryFile()  # noqa: SIM115 - closed by the caller
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as source:
            source.execute("vacuum into ?", (copy.name,))
    except sqlite3.OperationalError as error:
        copy.close()
        raise UsageError(
            f"expected a database that nobody keeps locked, got {path}: {error}; `foedus chain stop` ends a chain"
        ) from error
    return copy


def _add(tar: tarfile.TarFile, name: str, source: IO[bytes], size: int) -> dict[str, Any]:
    """Add the first `size` bytes: a log may grow meanwhile."""
    entry, hashed = tarfile.TarInfo(name), _Hashed(source)
    entry.size, entry.mode = size, 0o600
    tar.addfile(entry, hashed)  # type: ignore[arg-type] # it needs no more than `read`
    return {"bytes": size, "sha256": hashed.sha256.hexdigest()}


class _Hashed:
    """A file whose bytes are hashed as they are read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.sha256 = file, hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.sha256.update(data)
        return data


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, place: Path) -> dict[str, Any]:
    """Write one file of an archive; an archive is foreign, so it may hold nothing but files below the folder."""
    name = PurePosixPath(member.name)
    strange = not name.parts or name.is_absolute() or ".." in name.parts
    if strange or not member.isreg() or (source := tar.extractfile(member)) is None:
        raise ValueError(f"{member.name!r}, which is no file below the folder")
    path = place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    hashed = _Hashed(source)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        while piece := hashed.read(_PIECE):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return {"bytes": member.size, "sha256": hashed.sha256.hexdigest()}


def _check(place: Path, found: dict[str, Any], archive: Path) -> None:
    """Compare what was extracted with the manifest, which is taken away."""
    if found.pop(MANIFEST, None) is None:
        raise FormatError(f"{archive}: expected a backup that ends with {MANIFEST}, got none: it was cut off")
    path = place / MANIFEST
    manifest = from_json(path.read_bytes())
    path.unlink()
    if not isinstance(manifest, dict) or manifest.get("files") != found:
        raise IntegrityError(f"{archive}: expected the files that {MANIFEST} names, got others")
