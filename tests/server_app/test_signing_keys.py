"""The keys that sign in the coordinator's process."""

from pathlib import Path

import pytest

from core import keys
from core.config import RunConfig
from core.errors import ConfigError
from core.update import Organisation
from server_app.signing_keys import coordinator_key, requester_key

CONFIG = RunConfig(seed=7)
DERIVED = Organisation(keys.derive(7, "medical").address, "medical", 10, derived=True)


def test_a_coordinator_without_a_key_file_has_the_derived_one() -> None:
    assert coordinator_key(CONFIG) == keys.derive(7, "coordinator")


def test_a_coordinator_signs_with_the_key_in_its_file(tmp_path: Path) -> None:
    own = keys.create(tmp_path / "own.key")
    assert coordinator_key(RunConfig(coordinator_key=str(tmp_path / "own.key"))) == own


def test_a_member_of_a_simulation_asks_with_its_derived_key() -> None:
    assert requester_key(CONFIG, DERIVED) == keys.derive(7, "medical")


def test_a_member_with_a_key_of_its_own_asks_with_its_file(tmp_path: Path) -> None:
    own = keys.create(tmp_path / "own.key")
    member = Organisation(own.address, "medical", 10)
    with pytest.raises(ConfigError, match="requester-key: expected the key file of medical, got none"):
        requester_key(CONFIG, member)
    assert requester_key(RunConfig(requester_key=str(tmp_path / "own.key")), member) == own


def test_nobody_asks_for_another(tmp_path: Path) -> None:
    other = keys.create(tmp_path / "other.key")
    config = RunConfig(requester_key=str(tmp_path / "other.key"))
    with pytest.raises(ConfigError, match=f"expected that of medical .*{DERIVED.address}.*, got {other.address}"):
        requester_key(config, DERIVED)
