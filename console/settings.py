"""From the command line's options to a RunConfig."""

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from core.canonical import from_json
from core.config import RunConfig
from core.errors import ConfigError, DataError, ModelError, UsageError
from core.storage.blobs import open_blobs
from core.storage.state_folder import State

DEFAULTS = RunConfig()

_PATHS = ("state", "data", "validation", "coordinator-key", "requester-key", "store")


def build(
    options: Mapping[str, Any],
    assignments: Iterable[str],
    config_file: Path | None,
    base: RunConfig = DEFAULTS,
) -> RunConfig:
    """`base`, then the TOML file, then the options that were given, then every --set key=value.

    Relative paths are made absolute from the current folder. Raises ConfigError for a setting that is unknown or has
    the wrong type, DataError or ModelError for a path that leads nowhere.
    """
    settings = base.to_flat() | (_toml(config_file) if config_file else {})
    settings |= {key: value for key, value in options.items() if value is not None}
    settings |= dict(_assignment(text) for text in assignments)
    config = RunConfig.from_flat({key: absolute(key, value) for key, value in settings.items()})
    _check_paths(config)
    return config


def saved(state: State, run: str) -> RunConfig:
    """The settings that a run was started with; raises UsageError when there is no such run."""
    path = state.settings(state.run(run).name)
    try:
        settings = from_json(path.read_bytes())
    except OSError as error:
        raise UsageError(
            f"no settings of run {run!r} in {state.folder}: {error.strerror}, a run's id wanted"
        ) from error
    return RunConfig.from_flat(settings | {"state": str(state.folder)})


def _check_paths(config: RunConfig) -> None:
    """Refuse at once what would only be found out by processes that take seconds to start."""
    data, base = Path(config.data), Path(config.base)
    if config.data and not config.data.startswith("hf:") and not data.is_dir():
        raise DataError(f"data {data}: got no such folder, wanted one with NAME.jsonl or NAME/train.jsonl each")
    if config.validation and not Path(config.validation).is_file():
        raise DataError(f"validation {config.validation}: got no such file, wanted JSON Lines")
    if base.is_absolute() and not (base / "config.json").is_file():
        raise ModelError(f"base model {base}: got no config.json there, wanted a folder in Hugging Face format")
    if config.store:
        open_blobs(config.store)
    if config.coordinator_key and not Path(config.coordinator_key).is_file():
        raise ConfigError(f"coordinator-key {config.coordinator_key}: got no such file, wanted a key file")


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"config file {path}: {error.strerror}, a TOML of settings wanted") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"config file {path}: {error}, a TOML of settings wanted") from error


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


def absolute(key: str, value: Any) -> Any:
    """A path made absolute from the current folder; the value of any other setting as it is."""
    if not isinstance(value, str) or not value:
        return value
    path = Path(value).expanduser()
    if key in _PATHS and not value.startswith("hf:") and "://" not in value:
        return str(path.absolute())
    if key == "base" and (value.startswith((".", "/", "~")) or path.is_dir()):
        return str(path.absolute())
    return value
