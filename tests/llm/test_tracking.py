from pathlib import Path

import pytest

from core.errors import ConfigError
from llm.tracking import TRACKERS, Tracking


def test_a_run_that_asks_for_no_tracker_writes_nothing(tmp_path: Path) -> None:
    with Tracking("", tmp_path, "run", {}) as tracking:
        tracking.log({"loss": 1.0}, 1)
    assert not list(tmp_path.iterdir())


def test_an_unknown_tracker_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected .*tensorboard, wandb, mlflow, got 'tensorbord'"):
        Tracking("tensorbord", tmp_path, "run", {})


def test_a_tracker_that_is_not_installed_is_named_with_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TRACKERS, "mlflow", "a_package_that_is_not_there")
    with pytest.raises(ConfigError, match="needs the package a_package_that_is_not_there"):
        Tracking("mlflow", tmp_path, "run", {})


def test_the_numbers_of_a_run_reach_the_tracker(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    with Tracking("tensorboard", tmp_path, "run", {"rounds": 2}) as tracking:
        tracking.log({"validation/medical": 3.5}, 1)
    written = [path.read_bytes() for path in tmp_path.rglob("events.out.*")]
    assert any(b"validation/medical" in data for data in written)
