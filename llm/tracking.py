"""Experiment trackers, through accelerate: TensorBoard, Weights & Biases, MLflow.

They are followers: a run's own event log is the record, a tracker shows it. Asking for one that is not installed is a
mistake of the user's and said at once, where accelerate would go on without it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers

from core.errors import ConfigError

NAMES = ("tensorboard", "wandb", "mlflow")


class Log(Protocol):
    """Takes the figures of one round."""

    def __call__(self, values: Mapping[str, float], step: int) -> None:
        """Show `values` by name at `step`."""


@contextmanager
def trackers(names: str, run: str, folder: Path, settings: Mapping[str, bool | int | float | str]) -> Iterator[Log]:
    """Start the trackers in the comma-separated `names`, end them on leaving; with none, logging does nothing.

    Files lie in `folder`. Raises ConfigError for an unknown tracker or one that is not installed.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    _check(wanted)
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), log_with=wanted or None, project_dir=folder)
    accelerator.init_trackers(run, config=dict(settings))

    def log(values: Mapping[str, float], step: int) -> None:
        accelerator.log(dict(values), step=step)

    try:
        yield log
    finally:
        accelerator.end_training()


def _check(wanted: list[str]) -> None:
    installed = {str(tracker) for tracker in get_available_trackers()}
    for name in wanted:
        if name not in NAMES:
            raise ConfigError(f"trackers: got {name!r}, one of {', '.join(NAMES)} wanted")
        if name not in installed:
            raise ConfigError(f"trackers: {name} is not installed, `pip install {name}` wanted")
