"""Bytes under names: whole or not at all, in a folder and behind a URL."""

import errno
import os
import resource
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import ConfigError, FormatError, RunError
from core.storage.blobs import Blobs, Folder, Remote, open_blobs, read, write


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# --- writing -------------------------------------------------------------------------------------------------------


def test_a_file_is_written_with_the_folders_it_needs(tmp_path: Path) -> None:
    write(tmp_path / "a" / "b" / "c", b"data")
    assert (tmp_path / "a" / "b" / "c").read_bytes() == b"data"
    assert files(tmp_path) == ["a/b/c"]


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    write(tmp_path / "c", b"long before")
    write(tmp_path / "c", b"new")
    assert (tmp_path / "c").read_bytes() == b"new"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def failing(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    write(tmp_path / "c", b"before")
    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(RunError, match=f"c: expected .*, got {os.strerror(code)}"):
        write(tmp_path / "c", b"after")
    assert files(tmp_path) == ["c"]
    assert (tmp_path / "c").read_bytes() == b"before"


def test_a_full_disk_says_how_much_was_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="expected 4 bytes free, got No space left on device"):
        write(tmp_path / "c", b"data")


@pytest.fixture
def small_files() -> Iterator[None]:
    """The kernel refuses files above 64 KiB, as it would on a full disk in the middle of a write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("small_files")
def test_a_write_that_the_kernel_refuses_half_way_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="File too large"):
        write(tmp_path / "big", bytes(100_000))
    assert files(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_an_error_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="expected a writable folder"):
        write(tmp_path / "file" / "sub" / "c", b"data")


def test_a_process_killed_while_writing_leaves_no_half_file(tmp_path: Path) -> None:
    dying = (
        "import os, pathlib, sys; from core.storage.blobs import write\n"
        "os.fsync = lambda descriptor: os.kill(os.getpid(), 9)\n"
        "write(pathlib.Path(sys.argv[1]), b'half')"
    )
    done = subprocess.run([sys.executable, "-c", dying, str(tmp_path / "L0.json")], check=False)
    assert done.returncode == -9
    assert not (tmp_path / "L0.json").exists()
    assert all(name.startswith(".") and name.endswith(".partial") for name in files(tmp_path))


# --- a place for them ----------------------------------------------------------------------------------------------


@pytest.fixture(params=["folder", "file", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    places = {"folder": f"{tmp_path}/x", "file": f"file://{tmp_path}/y", "memory": f"memory://{secrets.token_hex(8)}/z"}
    return open_blobs(places[request.param])


def test_what_is_written_is_read(blobs: Blobs) -> None:
    blobs.write("a/b.sealed", iter([b"one", memoryview(b" and two")]))
    assert bytes(blobs.read("a/b.sealed")) == b"one and two"
    assert blobs.has("a/b.sealed")


def test_what_is_written_again_is_replaced(blobs: Blobs) -> None:
    blobs.write("a", [b"long before"])
    blobs.write("a", [b"new"])
    assert bytes(blobs.read("a")) == b"new"


def test_nothing_is_nothing_and_empty_is_empty(blobs: Blobs) -> None:
    assert not blobs.has("a")
    assert blobs.names() == []
    with pytest.raises(FileNotFoundError):
        blobs.read("a")
    blobs.write("a", [])
    assert bytes(blobs.read("a")) == b""


def test_names_are_listed_in_order_and_removed_for_good(blobs: Blobs) -> None:
    for name in ("b/2", "a", "b/1"):
        blobs.write(name, [b"x"])
    assert blobs.names() == ["a", "b/1", "b/2"]
    blobs.remove("b/1")
    blobs.remove("b/1")
    blobs.remove("never/there")
    assert blobs.names() == ["a", "b/2"]
    assert not blobs.has("b/1")


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"x")
    folder = Folder(tmp_path / "in")
    folder.write("a", [b"x"])
    (tmp_path / "in" / "b").symlink_to(tmp_path / "outside")
    assert folder.names() == ["a", "b"]
    with pytest.raises(OSError, match="symbolic links"):
        folder.read("b")


def test_a_name_that_cannot_be_removed_is_an_error_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(RunError, match="cannot remove"):
        Folder(tmp_path).remove("a")


@pytest.mark.parametrize("url", ["no-such-scheme://bucket", "s3+nothing://bucket"])
def test_a_url_that_nobody_opens_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="expected a folder or a URL"):
        Remote(url)


def test_what_a_services_library_raises_is_an_error_of_the_place() -> None:
    blobs = Remote("memory://somewhere")

    class Broken:
        def __getattr__(self, name: str) -> object:
            def failing(*_: object) -> None:
                raise KeyError("no credentials")

            return failing

    blobs._files = Broken()
    for reading in (lambda: blobs.read("a"), lambda: blobs.has("a"), blobs.names):
        with pytest.raises(OSError, match="KeyError: 'no credentials'"):
            reading()
    for writing in (lambda: blobs.write("a", [b""]), lambda: blobs.remove("a")):
        with pytest.raises(RunError, match="no credentials"):
            writing()


def test_parts_are_written_one_by_one(tmp_path: Path) -> None:
    """No part is asked for before the one before it is in the file."""
    target = tmp_path / "a"

    def parts() -> Iterator[bytes]:
        for index in range(3):
            (partial,) = tmp_path.glob(".a.*.partial")
            assert partial.stat().st_size == index * 100_000
            yield bytes(100_000)

    Folder(tmp_path).write("a", parts())
    assert target.stat().st_size == 300_000


def test_a_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(10))
    assert read(tmp_path / "a", 10) == bytes(10)
    with pytest.raises(FormatError, match="at most 9 bytes, got 10"):
        read(tmp_path / "a", 9)
