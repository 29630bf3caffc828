"""Where a run's records and its base come from, by the settings of the run."""

from dataclasses import replace
from pathlib import Path
from typing import cast

import assets
from core.config import RunConfig
from llm.data import Collection, Record, read_folder, read_records
from llm.hub import read_hub
from llm.model import Model, ModelSpec, Quantisation, load


def read_data(config: RunConfig) -> Collection:
    """The organisations' records and the validation set that none of them owns.

    Raises DataError saying what was got and what was wanted.
    """
    collection = _organisations(config)
    return replace(collection, validation=_validation(config) or collection.validation or _embedded_validation())


def load_base(base: str, quantisation: str, rank: int, alpha: float) -> Model:
    """The base model with an adapter, as the settings or the genesis name it; loaded once per process.

    Raises ModelError.
    """
    return load(ModelSpec(base, cast(Quantisation, quantisation), rank, alpha))


def _organisations(config: RunConfig) -> Collection:
    wanted = config.organisations or None
    if config.data.startswith("hf:"):
        return read_hub(config.data.removeprefix("hf:"), config.organisations, config.seed, config.partition)
    return read_folder(Path(config.data) if config.data else assets.samples(), wanted)


def _validation(config: RunConfig) -> tuple[Record, ...]:
    return read_records(Path(config.validation)) if config.validation else ()


def _embedded_validation() -> tuple[Record, ...]:
    return read_records(assets.samples() / "validation.jsonl")
