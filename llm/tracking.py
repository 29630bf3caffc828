"""Experiment trackers for people who keep their curves elsewhere: TensorBoard, Weights & Biases or MLflow.

Accelerate knows them all; nothing is sent anywhere unless a run asks for it by name.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

from accelerate import Accelerator

from core.errors import ConfigError

TRACKERS = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}
"""The setting's name of a tracker, and the package that it needs."""


class Tracking:
    """Logs the numbers of a run to every tracker that was asked for; to none when none was."""

    def __init__(self, names: str, folder: Path, run: str, settings: Mapping[str, bool | int | float | str]) -> None:
        """Start the trackers in `names` (comma-separated) with their files in `folder`.

        Raises ConfigError for a name that is unknown or whose package is not installed.
        """
        wanted = [name.strip() for name in names.split(",") if name.strip()]
        for name in wanted:
            _check(name)
        self._accelerator = Accelerator(cpu=True, log_with=wanted, project_dir=str(folder)) if wanted else None
        if self._accelerator:
            self._accelerator.init_trackers(run, config=dict(settings))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log numbers under their names at a round."""
        if self._accelerator:
            self._accelerator.log(dict(values), step=step)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._accelerator:
            self._accelerator.end_training()


def _check(name: str) -> None:
    if name not in TRACKERS:
        raise ConfigError(f"trackers has {name!r}, one of {', '.join(TRACKERS)} wanted")
    if find_spec(TRACKERS[name]) is None:
        raise ConfigError(f"tracker {name!r} needs the package {TRACKERS[name]}: pip install {TRACKERS[name]}")
