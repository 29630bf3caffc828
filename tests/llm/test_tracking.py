from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from accelerate import tracking as accelerate_tracking

from core.errors import ConfigError
from llm.tracking import trackers


class Notebook(accelerate_tracking.GeneralTracker):
    """Stands in for MLflow."""

    name = "mlflow"
    requires_logging_directory = False
    pages: list[Any] = []  # noqa: RUF012 (what all instances wrote)

    def __init__(self, run: str) -> None:
        super().__init__()
        self.pages.append(("start", run))

    @property
    def tracker(self) -> None:
        return None

    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        self.pages.append(("settings", values))

    def log(self, values: Mapping[str, float], step: int | None = None) -> None:
        self.pages.append((step, values))

    def finish(self) -> None:
        self.pages.append("end")


def test_a_tracker_is_told_settings_rounds_and_the_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(accelerate_tracking.LOGGER_TYPE_TO_CLASS, "mlflow", Notebook)
    monkeypatch.setattr(accelerate_tracking, "_available_trackers", [accelerate_tracking.LoggerType.MLFLOW])
    Notebook.pages.clear()
    with trackers("mlflow", "r1", tmp_path, {"rank": 8}) as log:
        log({"loss": 2.5}, step=1)
    assert Notebook.pages == [("start", "r1"), ("settings", {"rank": 8}), (1, {"loss": 2.5}), "end"]


def test_without_trackers_logging_does_nothing(tmp_path: Path) -> None:
    with trackers("", "r1", tmp_path, {}) as log:
        log({"loss": 2.5}, step=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("names", "message"), [("paper", "one of"), ("mlflow,paper", "one of"), ("mlflow", "install")])
def test_a_tracker_that_cannot_be_had_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, names: str, message: str
) -> None:
    installed = [] if message == "install" else [accelerate_tracking.LoggerType.MLFLOW]
    monkeypatch.setattr(accelerate_tracking, "_available_trackers", installed)
    with pytest.raises(ConfigError, match=message), trackers(names, "r1", tmp_path, {}):
        pass
