"""`foedus restore`; that what it brings back holds under audit is shown beside `foedus backup`."""

from pathlib import Path

from tests.commands import foedus


def test_a_file_that_is_no_backup_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "b.tar.gz").write_bytes(b"none")
    done = foedus("restore", tmp_path / "b.tar.gz", "--out", tmp_path / "again")
    assert done.code == 1
    assert done.err.startswith(f"foedus: {tmp_path}/b.tar.gz: expected a backup, got")
    assert not (tmp_path / "again").exists()


def test_a_restore_says_what_an_older_copy_brings_back(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "node.toml").write_text("x")
    foedus("backup", tmp_path / "part", "--out", tmp_path / "b.tar.gz")
    done = foedus("restore", tmp_path / "b.tar.gz", "--out", tmp_path / "again")
    assert (done.code, (tmp_path / "again" / "node.toml").read_text()) == (0, "x")
    assert "repeat each erasure that is newer than the backup" in done.out
