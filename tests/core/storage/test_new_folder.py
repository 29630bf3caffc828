"""A folder appears whole or not at all, and never in place of another."""

from pathlib import Path

import pytest

from core.errors import RunError, UsageError
from core.storage.new_folder import appearing


def test_a_folder_appears_when_all_is_there(tmp_path: Path) -> None:
    with appearing(tmp_path / "deep" / "new") as partial:
        (partial / "inner").mkdir(parents=True)
        assert not (tmp_path / "deep" / "new").exists()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["new"]
    assert (tmp_path / "deep" / "new" / "inner").is_dir()


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    def write() -> None:
        with appearing(tmp_path / "new") as partial:
            partial.mkdir()
            raise OSError(28, "No space left on device")

    with pytest.raises(RunError, match=r"cannot write .*No space left"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_content_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(UsageError, match="expected a new or empty folder"), appearing(tmp_path):
        pass
