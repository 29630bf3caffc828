import io
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_disk

from client_app.own_app import app_digest, check_app, installed_hashes
from console.backends.app_folder import stage
from core.errors import IntegrityError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def fab(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return build_fab_from_disk(stage(tmp_path_factory.mktemp("app")))


def changed(fab: bytes, change: Callable[[dict[str, bytes]], object]) -> bytes:
    with zipfile.ZipFile(io.BytesIO(fab)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    change(files)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def test_a_node_accepts_the_app_that_is_installed(fab: bytes) -> None:
    check_app(fab)


def test_a_checkout_is_packed_as_an_installed_package_is(tmp_path: Path) -> None:
    for name in installed_hashes():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    shutil.copyfile(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    check_app(build_fab_from_disk(tmp_path))


@pytest.mark.parametrize(
    ("change", "differing"),
    [
        (lambda files: files.update({"client_app/app.py": b"import os\n"}), "client_app/app.py"),
        (lambda files: files.pop("client_app/checks.py"), "client_app/checks.py"),
        (lambda files: files.update({"sitecustomize.py": b""}), "sitecustomize.py"),
        (lambda files: files.update({"numpy/__init__.py": b""}), "numpy/__init__.py"),
    ],
    ids=["changed", "left out", "added", "shadowing a library"],
)
def test_another_app_is_refused_and_the_file_that_differs_is_named(
    fab: bytes, change: Callable[[dict[str, bytes]], object], differing: str
) -> None:
    with pytest.raises(IntegrityError, match=f"app: expected .*{app_digest(installed_hashes())}.* in '{differing}'"):
        check_app(changed(fab, change))


def test_what_is_no_archive_is_refused(fab: bytes) -> None:
    for damaged in (b"", b"no archive", fab[: len(fab) // 2], fab[:2000] + b"\0" * 2000 + fab[4000:]):
        with pytest.raises(IntegrityError, match="app: expected"):
            check_app(damaged)


def test_a_damaged_entry_of_any_compression_is_refused() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("core/odd.py", b"\x09\x04\x05\x00" + b"\xff" * 40)
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, 93):
        damaged = bytearray(out.getvalue())
        for offset in (8, damaged.index(b"PK\x01\x02") + 10):
            damaged[offset : offset + 2] = struct.pack("<H", method)
        with pytest.raises(IntegrityError, match="app: expected a FAB"):
            check_app(bytes(damaged))


def test_an_archive_of_more_bytes_than_an_app_has_is_not_opened() -> None:
    with pytest.raises(IntegrityError, match="expected at most 10485760 bytes, got 10485761"):
        check_app(b"\0" * (10 * 2**20 + 1))


def test_an_archive_that_claims_gigabytes_is_refused_before_it_is_read() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("core/big.py", b"x")
    claimed = bytearray(out.getvalue())
    entry = claimed.index(b"PK\x01\x02")
    claimed[entry + 24 : entry + 28] = struct.pack("<I", 2**31)
    with pytest.raises(IntegrityError, match="expected at most"):
        check_app(bytes(claimed))
