"""The key that signs in the coordinator's process."""

from pathlib import Path

from core import keys
from core.config import RunConfig
from server_app.coordinator_key import coordinator_key

CONFIG = RunConfig(seed=7)


def test_a_coordinator_without_a_key_file_has_the_derived_one() -> None:
    assert coordinator_key(CONFIG) == keys.derive(7, "coordinator")


def test_a_coordinator_signs_with_the_key_in_its_file(tmp_path: Path) -> None:
    own = keys.create(tmp_path / "own.key")
    assert coordinator_key(RunConfig(coordinator_key=str(tmp_path / "own.key"))) == own
