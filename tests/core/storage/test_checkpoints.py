"""Checkpoints: the newest before a round, and none of the rounds that an erasure took back."""

from pathlib import Path

from core.storage.checkpoints import Checkpoints

PLACES = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3))


def saved(folder: Path) -> Checkpoints:
    """One file for each place, which holds its name."""
    checkpoints = Checkpoints(folder, ".x")
    for generation, number in PLACES:
        checkpoints.save(generation, number, b"%d ", b"%d")
    return checkpoints


def test_a_file_holds_what_was_saved_last(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, ".x")
    checkpoints.save(0, 1, b"one")
    checkpoints.save(0, 1, b"an", b"other")
    (path,) = checkpoints.saved().values()
    assert path.read_bytes() == b"another"


def test_the_newest_before_a_round_is_of_its_own_generation_or_of_the_one_that_it_forks_from(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path)
    paths = {(g, n): checkpoints.saved().get((g, n)) for g, n in PLACES}
    assert checkpoints.before(0, 1) is None
    assert checkpoints.before(0, 3) == paths[0, 2]
    assert checkpoints.before(0, 9) == paths[0, 3]
    assert checkpoints.before(1, 2) == paths[0, 1]
    assert checkpoints.before(1, 3) == paths[1, 2]


def test_what_an_erasure_took_back_is_deleted_in_earlier_generations_alone(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path)
    assert checkpoints.delete_after(1, generation=1) == 2
    assert sorted(checkpoints.saved()) == [(0, 1), (1, 2), (1, 3)]
    assert checkpoints.delete_after(1, generation=1) == 0


def test_files_of_another_suffix_are_not_its_own(tmp_path: Path) -> None:
    saved(tmp_path)
    assert Checkpoints(tmp_path, ".y").saved() == {}
    assert Checkpoints(tmp_path / "none", ".x").before(1, 1) is None
