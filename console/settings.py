"""From the command line's options to a RunConfig."""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.canonical import from_json
from core.config import RunConfig, no_setting
from core.errors import ConfigError, DataError, ModelError, UsageError
from core.storage.blobs import open_blobs
from core.storage.state_folder import State
from llm.bases import located

DEFAULTS = RunConfig()

_PATHS = ("state", "data", "validation", "coordinator-key", "request", "records", "store")


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
    settings = base.to_flat()
    if config_file:
        try:
            settings |= tomllib.loads(config_file.read_text(encoding="utf-8-sig"))
        except OSError as error:
            raise UsageError(f"config file {config_file}: expected a TOML of settings, got {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise UsageError(f"config file {config_file}: expected a TOML of settings, got {error}") from error
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
        raise UsageError(f"run {run!r}: expected its settings in {path}, got {error.strerror}") from error
    return RunConfig.from_flat(settings | {"state": str(state.folder)})


def restored(state: State, run: str, base: str = "") -> RunConfig:
    """The settings to go on with a run: as `saved`, with the base at `base`, else where it is now if it has moved."""
    settings, folder = saved(state, run), state.run(run)
    if base:
        return replace(settings, base=absolute("base", base))
    return replace(settings, base=located(settings.base, folder.genesis.base.digest)) if folder.started else settings


def _check_paths(config: RunConfig) -> None:
    """Refuse at once a path that processes would only miss once they have started, seconds later."""
    data, base = Path(config.data), Path(config.base)
    if config.data and not config.data.startswith("hf:") and not data.is_dir():
        raise DataError(f"data {data}: expected a folder of NAME.jsonl or NAME/train.jsonl, got no such folder")
    if config.validation and not Path(config.validation).is_file():
        raise DataError(f"validation {config.validation}: expected a file of JSON Lines, got no such file")
    if base.is_absolute() and not (base / "config.json").is_file():
        raise ModelError(
            f"base model {base}: expected a folder in Hugging Face format, got no config.json there: "
            "give its place with --base"
        )
    if config.store:
        open_blobs(config.store)
    if config.coordinator_key and not Path(config.coordinator_key).is_file():
        raise ConfigError(f"coordinator-key {config.coordinator_key}: expected a key file, got no such file")


def _assignment(text: str) -> tuple[str, Any]:
    """KEY=VALUE, the value read as its setting's type."""
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set: expected NAME=VALUE with the name of a setting, got {text!r}")
    if (default := RunConfig().to_flat().get(key)) is None:
        raise ConfigError(f"--set: {no_setting(key)}")
    if isinstance(default, str):
        return key, value
    try:  # as a line of a TOML file, so that --set and --config read a value alike
        return key, tomllib.loads(f"v = {value}")["v"]
    except (ValueError, RecursionError) as error:  # Python reads no integer of more than 4,300 digits
        raise ConfigError(f"--set: expected a value like {default!r}, got {text!r:.80}") from error


def absolute(key: str, value: Any) -> Any:
    """A path made absolute from the current folder; the value of any other setting as it is."""
    if not isinstance(value, str) or not value:
        return value
    if key == "data" and value.startswith("hf:"):
        return f"hf:{_folder_or_name(value.removeprefix('hf:'))}"
    if key in _PATHS and "://" not in value:
        return str(Path(value).expanduser().absolute())
    return _folder_or_name(value) if key == "base" else value


def _folder_or_name(value: str) -> str:
    """A folder as an absolute path, anything else as it is: a name on the Hub."""
    path = Path(value).expanduser()
    return str(path.absolute()) if value.startswith((".", "/", "~")) or path.is_dir() else value
