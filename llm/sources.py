"""The records and the base model that the settings of a run name."""

from dataclasses import replace
from pathlib import Path
from typing import cast

import assets
from core.config import RunConfig
from llm.hub import read_hub
from llm.model import Model, ModelSpec, Quantisation, load
from llm.records import VALIDATION, Collection, read_folder, read_records


def read_data(config: RunConfig) -> Collection:
    """The organisations' records and the shared validation set; raises DataError."""
    if config.data.startswith("hf:"):
        name = config.data.removeprefix("hf:")
        collection = read_hub(name, config.organisations, config.seed, config.partition)
    else:
        folder = Path(config.data) if config.data else assets.samples()
        collection = read_folder(folder, config.organisations or None)
    if config.validation:
        return replace(collection, validation=read_records(Path(config.validation)))
    if collection.validation:
        return collection
    # Every round is measured: a source without a validation set gets the embedded one.
    return replace(collection, validation=read_records(assets.samples() / VALIDATION))


def load_base(base: str, quantisation: str, rank: int, alpha: float) -> Model:
    """The base model with an adapter, as the settings or the genesis name it; loaded once per process.

    Raises ModelError when it cannot be loaded.
    """
    return load(ModelSpec(base, cast(Quantisation, quantisation), rank, alpha))
