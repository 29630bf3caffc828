"""The app of the installed version: an organisation runs it, and compares with it the one that a coordinator sends.

Flower sends an app's code (FAB) with every run. A node never runs that code. It compares it with its own, file by
file, since a coordinator whose app differs runs another version, or another program. What is compared is the code and
not the archive, whose bytes depend on zlib and on whether it was packed from a checkout or from an installed package.
"""

import hashlib
import io
import lzma
import zipfile
import zlib
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from core.canonical import Digest, digest, to_json
from core.errors import IntegrityError

PACKAGES = ("core", "llm", "client_app", "server_app", "chain", "agents", "provenance", "unlearning")
"""The packages of which the app is made; `fab-include` of pyproject.toml names the same."""
_DECLARATIONS = ("pyproject.toml", ".info/CONTENT")
"""What Flower writes itself: settings, which are checked as a run's, and a table of contents."""
_MOST_BYTES = 64 * 2**20
_MOST_FILES = 10_000
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, ValueError, EOFError, NotImplementedError, RuntimeError,
)  # fmt: skip
_LARGEST_FAB = 10 * 2**20
"""What `flwr build` makes is no larger; the list of an archive's entries takes ten times its size in memory."""


def installed_files() -> dict[str, Path]:
    """Every Python file of the installed app by its name in a FAB, sorted."""
    files = {}
    for package in PACKAGES:
        spec = find_spec(package)
        assert spec is not None  # noqa: S101 - the app cannot run without them
        assert spec.origin is not None  # noqa: S101
        folder = Path(spec.origin).parent
        for path in folder.rglob("*.py"):
            name = path.relative_to(folder)
            if not {"__pycache__", "node_modules", "contracts"} & set(name.parts):
                files[f"{package}/{name.as_posix()}"] = path
    return dict(sorted(files.items()))


@cache
def installed_hashes() -> Mapping[str, str]:
    """The SHA-256 of every file of the installed app, read once a process."""
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in installed_files().items()}


def app_digest(hashes: Mapping[str, str]) -> Digest:
    """One digest of an app's code, under ``foedus/app/v1``."""
    return digest("app", to_json(dict(hashes)))


def check_app(fab: bytes) -> None:
    """Check that a FAB holds the installed app's code and no other.

    Raises IntegrityError, which names the first file that differs.
    """
    own, sent = installed_hashes(), hashes_of(fab)
    if own != sent:
        differing = min(name for name in own.keys() | sent.keys() if own.get(name) != sent.get(name))
        raise IntegrityError(
            f"app: expected that of this node, {app_digest(own)}, got {app_digest(sent)}, which differs in "
            f"{differing!r}: coordinator and nodes need one version"
        )


def hashes_of(fab: bytes) -> dict[str, str]:
    """The SHA-256 of every file of code in a FAB by its name; raises IntegrityError for an archive that is none."""
    if len(fab) > _LARGEST_FAB:
        raise IntegrityError(f"app: expected at most {_LARGEST_FAB} bytes, got {len(fab)}")
    try:
        with zipfile.ZipFile(io.BytesIO(fab)) as archive:
            entries = archive.infolist()
            # A few kilobytes can claim gigabytes; a ZipFile reads no more than an entry claims.
            if len(entries) > _MOST_FILES or sum(entry.file_size for entry in entries) > _MOST_BYTES:
                raise IntegrityError(f"app: expected at most {_MOST_BYTES} bytes of code, got an archive of more")
            return {
                entry.filename: hashlib.sha256(archive.read(entry)).hexdigest()
                for entry in entries
                if entry.filename not in _DECLARATIONS
            }
    # Of a damaged archive zipfile raises errors of many kinds, and none of them is the node's.
    except _DAMAGE as error:
        raise IntegrityError(f"app: expected a FAB, got an archive that cannot be read: {error}") from error
