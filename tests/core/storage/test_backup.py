"""Backups: consistent while a folder is used, checked to the byte when they are put back."""

import io
import socket
import sqlite3
import stat
import tarfile
from pathlib import Path

import pytest

from core.errors import FormatError, IntegrityError, RunError, UsageError
from core.storage import backup
from core.storage.backup import MANIFEST, back_up, restore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Something of everything that a folder holds."""
    folder = tmp_path / "state"
    for name, text in {
        "own.key": "secret", "runs/one/genesis.json": "{}", "runs/one/artifacts/aa": "sealed", "empty": "",
        "runs/one/records/L0000-G0000-R00001-A01.json": "{}", "events/one.jsonl": '{"event":"started"}\n',
    }.items():  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_folder_comes_back_to_the_byte_and_for_its_user_alone(folder: Path, tmp_path: Path) -> None:
    archive, again = tmp_path / "b.tar.gz", tmp_path / "again" / "state"
    copied = back_up(folder, archive)
    assert copied == (6, sum(map(len, contents(folder).values())))
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    assert restore(archive, again) == copied
    assert contents(again) == contents(folder)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (again, *again.rglob("*")) if path.is_file()}
    assert modes == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (again, *again.rglob("*")) if path.is_dir()} == {0o700}
    assert not list(tmp_path.rglob(".*"))


def test_artifacts_are_copied_after_the_records_that_name_them(folder: Path, tmp_path: Path) -> None:
    back_up(folder, tmp_path / "b.tar.gz")
    with tarfile.open(tmp_path / "b.tar.gz") as tar:
        names = tar.getnames()
    assert names[-2:] == ["runs/one/artifacts/aa", MANIFEST]


def test_a_round_that_closes_while_the_files_are_listed_is_whole_or_absent(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def listed(self: Path, pattern: str) -> list[Path]:
        """Artifacts are found before the rest, and then a round closes: as a file system may have it."""
        found = list(rglob(self, pattern))
        first = [path for path in found if "artifacts" in path.parts]
        (folder / "runs/one/artifacts/bb").write_bytes(b"of the new round")
        (record := folder / "runs/one/records/L2.json").parent.mkdir(exist_ok=True)
        record.write_bytes(b"names bb")
        return first + [path for path in rglob(self, pattern) if "artifacts" not in path.parts]

    rglob = Path.rglob
    monkeypatch.setattr(Path, "rglob", listed)
    back_up(folder, tmp_path / "b.tar.gz")
    with tarfile.open(tmp_path / "b.tar.gz") as tar:
        names = tar.getnames()
    assert "runs/one/artifacts/bb" in names or "runs/one/records/L2.json" not in names


def test_what_is_no_files_content_is_left_out(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "locks").mkdir()
    (folder / "locks/one.lock").write_text("1")
    (folder / "runs/one/.genesis.json.7.partial").write_text("torn")
    (folder / "link").symlink_to("/etc/passwd")
    monkeypatch.chdir(folder)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("sock")
        assert back_up(folder, tmp_path / "b.tar.gz").files == 6


@pytest.mark.parametrize("name", ["state", "clinic #1, 100%25?mode=rw"])
def test_a_database_in_use_is_copied_as_it_stands(folder: Path, tmp_path: Path, name: str) -> None:
    folder = folder.rename(tmp_path / name)
    with sqlite3.connect(folder / "link.db") as open_database:
        open_database.execute("pragma journal_mode=wal")
        open_database.execute("create table nodes (key text)")
        open_database.execute("insert into nodes values ('abc')")
        open_database.commit()
        assert (folder / "link.db-wal").stat().st_size > 0
        back_up(folder, tmp_path / "b.tar.gz")
        restore(tmp_path / "b.tar.gz", tmp_path / "again")
    assert not (tmp_path / "again/link.db-wal").exists()
    assert sqlite3.connect(tmp_path / "again/link.db").execute("select key from nodes").fetchall() == [("abc",)]


def test_a_log_that_grows_meanwhile_is_copied_up_to_where_it_was(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, log = backup._add, folder / "events/one.jsonl"
    before = log.read_bytes()

    def growing(tar: tarfile.TarFile, name: str, source: io.BufferedReader, size: int) -> object:
        if name == "events/one.jsonl":
            log.write_bytes(before + b'{"event":"more"}\n')
        return real(tar, name, source, size)

    monkeypatch.setattr(backup, "_add", growing)
    back_up(folder, tmp_path / "b.tar.gz")
    restore(tmp_path / "b.tar.gz", tmp_path / "again")
    assert (tmp_path / "again/events/one.jsonl").read_bytes() == before


def test_an_erasure_meanwhile_is_told_and_leaves_no_archive(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = backup._files

    def erasing(of: Path) -> object:
        (folder / "runs/one/erasures").mkdir()
        (folder / "runs/one/erasures/L0000-G0001.json").write_text("{}")
        return real(of)

    monkeypatch.setattr(backup, "_files", erasing)
    with pytest.raises(UsageError, match=r"expected no erasure while .* got one: back up again"):
        back_up(folder, tmp_path / "b.tar.gz")
    assert list(tmp_path.iterdir()) == [folder]


def test_a_file_that_cannot_be_read_is_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> object:
        raise PermissionError(13, "Permission denied", str(path))  # root, as whom tests may run, reads every file

    monkeypatch.setattr(backup, "_opened", refused)
    with pytest.raises(RunError, match=r"empty: Permission denied"):
        back_up(folder, tmp_path / "b.tar.gz")
    assert list(tmp_path.iterdir()) == [folder]


def test_a_backup_lies_outside_and_is_of_a_folder(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected a backup outside"):
        back_up(folder, folder / "b.tar.gz")
    with pytest.raises(UsageError, match="expected a folder to back up"):
        back_up(tmp_path / "none", tmp_path / "b.tar.gz")
    back_up(folder, tmp_path / "b.tar.gz")
    with pytest.raises(UsageError, match="expected an empty folder"):
        restore(tmp_path / "b.tar.gz", folder)


def archive_of(path: Path, members: dict[str, bytes], **changed: object) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            for field, value in changed.items():
                setattr(entry, field, value)
            tar.addfile(entry, io.BytesIO(content))
    return path


@pytest.mark.parametrize(
    ("name", "changed"),
    [("../out", {}), ("/out", {}), ("a", {"type": tarfile.SYMTYPE, "linkname": "/etc"}), ("", {})],
)
def test_nothing_but_files_below_the_folder_is_put_back(tmp_path: Path, name: str, changed: dict[str, object]) -> None:
    archive = archive_of(tmp_path / "b.tar.gz", {name: b"x"}, **changed)
    with pytest.raises(FormatError, match="expected a backup"):
        restore(archive, tmp_path / "in" / "again")
    assert not list((tmp_path / "in").iterdir())


@pytest.mark.parametrize(
    "how", ["a changed file", "a file more", "a file less", "cut off", "no archive", "no manifest"]
)
def test_a_damaged_backup_is_refused_and_leaves_nothing(folder: Path, tmp_path: Path, how: str) -> None:
    archive = tmp_path / "b.tar.gz"
    back_up(folder, archive)
    with tarfile.open(archive) as tar:
        members = {m.name: file.read() for m in tar if (file := tar.extractfile(m))}
    manifest = members.pop(MANIFEST)
    if how == "a changed file":
        members["own.key"] = b"Secret"
    if how == "a file more":
        members["more"] = b""
    if how == "a file less":
        del members["own.key"]
    archive_of(archive, members if how == "no manifest" else members | {MANIFEST: manifest})
    if how == "cut off":
        archive.write_bytes(archive.read_bytes()[:-40])
    if how == "no archive":
        archive.write_bytes(b"no archive")
    with pytest.raises((FormatError, IntegrityError, UsageError), match=r"b\.tar\.gz: expected"):
        restore(archive, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected a backup, got No such file"):
        restore(tmp_path / "none.tar.gz", tmp_path / "again")
