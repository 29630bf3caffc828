"""The key that signs in the coordinator's process."""

from logging import WARNING
from pathlib import Path

from flwr.common.logger import log

from core import keys
from core.config import RunConfig
from core.keys import Key


def coordinator_key(config: RunConfig) -> Key:
    """The key in the file of the settings; without one, the key that anybody can derive from the seed."""
    if config.coordinator_key:
        return keys.read(Path(config.coordinator_key))
    log(WARNING, "The coordinator's key is derived from the seed: anybody can compute it. For development only.")
    return keys.derive(config.seed, "coordinator")
