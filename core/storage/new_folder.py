"""A folder that is written beside its place, and appears there whole or not at all."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from core.errors import RunError, UsageError


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """The place to write a folder to; it appears as `folder` when all is there, or not at all.

    Raises UsageError when the folder exists and is not empty, RunError when it cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"folder: expected a new or empty folder, got {folder}: choose another")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
            yield (partial := Path(scratch) / folder.name)
            partial.replace(folder)
    except (OSError, SafetensorError) as error:
        raise RunError(f"cannot write {folder}: {error}: choose a writable folder with room") from error
