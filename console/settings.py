"""From the command line's options to a RunConfig."""

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from core.canonical import from_json
from core.config import RunConfig
from core.errors import ConfigError, UsageError
from core.places import State

_PATHS = ("state", "data", "validation", "coordinator-key")


def build(options: Mapping[str, Any], assignments: Iterable[str], config_file: Path | None) -> RunConfig:
    """Defaults, then the TOML file, then the options that were given, then every --set key=value.

    Relative paths are made absolute from the current folder. Raises ConfigError.
    """
    settings = RunConfig().to_flat() | (_toml(config_file) if config_file else {})
    settings |= {key: value for key, value in options.items() if value is not None}
    settings |= dict(_assignment(text) for text in assignments)
    return RunConfig.from_flat({key: _absolute(key, value) for key, value in settings.items()})


def resumed(state: State, run: str) -> RunConfig:
    """The settings that a run was started with, set to go on; raises UsageError when there is no such run."""
    folder = state.existing(run)
    saved = from_json(state.settings(folder.name).read_bytes())
    return RunConfig.from_flat(saved | {"run": folder.name, "resume": True, "state": str(state.folder)})


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"config file {path}: {error.strerror}, a TOML of settings wanted") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"config file {path}: {error}") from error


def _assignment(text: str) -> tuple[str, Any]:
    """KEY=VALUE, the value read as its setting's type."""
    key, equals, value = text.partition("=")
    default = RunConfig().to_flat().get(key)
    if not equals or default is None:
        raise ConfigError(f"--set got {text!r}, key=value with a setting's name wanted")
    if isinstance(default, str):
        return key, value
    try:
        return key, tomllib.loads(f"v = {value}")["v"]
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"--set got {text!r}, a value like {default!r} wanted") from error


def _absolute(key: str, value: Any) -> Any:
    if key in _PATHS and value and not value.startswith("hf:"):
        return str(Path(value).expanduser().absolute())
    if key == "base" and Path(value).expanduser().exists():
        return str(Path(value).expanduser().absolute())
    return value
