"""`foedus check` on files that are no certificate of a run here; tests/unlearning/test_commands.py checks real ones."""

from pathlib import Path

from tests.commands import World


def test_a_file_that_is_no_certificate_does_not_hold(world: World, tmp_path: Path) -> None:
    (tmp_path / "certificate.json").write_text("{}", encoding="ascii")
    done = world.command("check", tmp_path / "certificate.json")
    assert done.code == 1
    (failure,) = done.json["failures"]
    assert failure["where"] == str(tmp_path / "certificate.json")
    assert set(failure) == {"what", "where", "got", "want"}


def test_a_certificate_that_is_not_there_is_wrong_usage(world: World, tmp_path: Path) -> None:
    done = world.command("check", tmp_path / "gone.json")
    assert done.code == 2
    assert all(fact in done.error for fact in (str(tmp_path / "gone.json"), "`foedus forget`", "No such file"))
