"""Experiment trackers, through Accelerate: TensorBoard, Weights & Biases or MLflow.

Nothing is sent anywhere unless a run names a tracker.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

from accelerate import Accelerator

from core.errors import ConfigError

TRACKERS = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}
"""Trackers by their name in the settings, and the package that each needs."""


class Tracking:
    """Logs the numbers of a run to every tracker that the settings name."""

    def __init__(self, names: str, folder: Path, run: str, settings: Mapping[str, bool | int | float | str]) -> None:
        """Start the trackers in `names` (comma-separated) with their files in `folder`.

        Raises ConfigError for a name that is unknown or whose package is not installed.
        """
        trackers = [name.strip() for name in names.split(",") if name.strip()]
        for name in trackers:
            if name not in TRACKERS:
                raise ConfigError(f"trackers: expected names among {', '.join(TRACKERS)}, got {name!r}")
            # Accelerate itself leaves a tracker out without a word when its package is missing.
            if find_spec(TRACKERS[name]) is None:
                raise ConfigError(f"tracker {name!r} needs the package {TRACKERS[name]}: pip install {TRACKERS[name]}")
        self._accelerator = Accelerator(cpu=True, log_with=trackers, project_dir=str(folder)) if trackers else None
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
