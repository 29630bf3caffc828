"""The base model that the settings or the genesis of a run name."""

from typing import cast

from core.config import RunConfig
from core.genesis import Genesis
from llm.model import Model, ModelSpec, Quantisation, load


def base_of_settings(config: RunConfig) -> Model:
    """The base model with an adapter, as the settings of a run name them; raises ModelError."""
    modules = tuple(name.strip() for name in config.target_modules.split(",") if name.strip())
    quantisation = cast(Quantisation, config.quantisation)
    return load(ModelSpec(config.base, quantisation, config.rank, config.alpha, modules, config.target_blocks))


def base_of_genesis(genesis: Genesis, name: str = "") -> Model:
    """The base model of a genesis with an adapter, from where `name` says, or else as the genesis names it.

    Raises ModelError when it cannot be loaded.
    """
    base = genesis.base
    quantisation = cast(Quantisation, base.quantisation)
    spec = ModelSpec(
        name or base.name, quantisation, genesis.rank, genesis.alpha, genesis.target_modules, genesis.target_blocks
    )
    return load(spec)
