"""The tasks of the Language Model Evaluation Harness (Gao et al., 2023; package lm_eval), where that is installed.

It is no dependency of the project. Its tasks ask in plain text, without a chat template, and most fetch their data from
the Hub.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from core.adapter import AdapterState
from core.errors import UsageError
from llm.determinism import reproducible
from llm.model import Model

VERSION = "0.4.13"


def check_installed() -> None:
    """Raise UsageError, with the command that installs it, where the package is missing."""
    if find_spec("lm_eval") is None:
        raise UsageError(f"--tasks: expected the package lm_eval, got none: pip install lm_eval=={VERSION}")


def task_figures(
    model: Model, adapter: AdapterState | None, tasks: Sequence[str], folder: Path | None, limit: int | None
) -> dict[str, dict[str, float]]:
    """The figures of every task, by its name and theirs, with `adapter` or with the bare base.

    `folder` has tasks of one's own; `limit` is the most questions of each. Raises UsageError for a task that does not
    exist or cannot be had.
    """
    harness, tasks_of = import_module("lm_eval"), import_module("lm_eval.tasks")
    wrapped = import_module("lm_eval.models.huggingface").HFLM
    if adapter is not None:
        model.set_adapter(adapter)
    network: Any = model.module.get_base_model()
    manager = tasks_of.TaskManager(include_path=None if folder is None else str(folder))
    if unknown := sorted(set(tasks) - set(manager.all_tasks)):
        raise UsageError(f"--tasks: expected tasks of lm_eval, got {unknown[0]!r}: `lm-eval ls tasks` lists them")
    bare = model.without_adapter() if adapter is None else nullcontext()
    subject = wrapped(pretrained=network, tokenizer=model.tokenizer, batch_size=1)
    asked = {"tasks": list(tasks), "task_manager": manager, "limit": limit, "bootstrap_iters": 0, "log_samples": False}
    try:
        with reproducible(model.device, 0), torch.no_grad(), model.autocast(), bare:
            found = harness.simple_evaluate(subject, **asked)
    except (OSError, ValueError) as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(f"--tasks: expected tasks whose data can be had, got {why}") from error
    return {
        # A figure's name ends with the filter of the answers, which is mostly none.
        task: {
            name.removesuffix(",none"): float(value)
            for name, value in figures.items()
            if isinstance(value, int | float) and "stderr" not in name
        }
        for task, figures in found["results"].items()
    }
