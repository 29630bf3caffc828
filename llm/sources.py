"""The base model that the settings or the genesis of a run name."""

from typing import cast

from core.config import RunConfig
from core.errors import ConfigError, ModelError
from core.genesis import Genesis
from llm.model import Model, ModelSpec, Quantisation, load


def base_of_settings(config: RunConfig, date: str = "") -> Model:
    """The base model with an adapter, as the settings of a run name them; its template prints `date`, or today's.

    Raises ModelError; ConfigError where rows are longer than the base has positions.
    """
    modules = tuple(name.strip() for name in config.target_modules.split(",") if name.strip())
    quantisation = cast(Quantisation, config.quantisation)
    model = load(
        ModelSpec(
            config.base, quantisation, config.rank, config.alpha, modules, config.target_blocks, date, config.rslora
        )
    )
    positions = model.context_length
    if positions is not None and config.max_length > positions:
        raise ConfigError(
            f"max-length: expected at most {positions}, the positions of base {config.base}, got {config.max_length}"
        )
    return model


def base_of_genesis(genesis: Genesis, name: str = "") -> Model:
    """The base model of a genesis with an adapter, from where `name` says, or else as the genesis names it.

    Raises ModelError when it cannot be loaded, or prints another date.
    """
    base = genesis.base
    spec = ModelSpec(
        name or base.name,
        cast(Quantisation, base.quantisation),
        genesis.rank,
        genesis.alpha,
        genesis.target_modules,
        genesis.target_blocks,
        genesis.template.date,
        genesis.rslora,
    )
    model = load(spec)
    if (printed := model.spec.date) != (expected := genesis.template.date):
        raise ModelError(f"chat template: expected one that prints {expected or 'no date'}, got {printed or 'no date'}")
    return model
