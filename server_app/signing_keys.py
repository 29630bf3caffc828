"""The keys that sign in the coordinator's process: its own, and that of an organisation that asks for an erasure."""

from logging import WARNING
from pathlib import Path

from flwr.common.logger import log

from core import keys
from core.config import RunConfig
from core.errors import ConfigError
from core.keys import Key
from core.update import Organisation


def coordinator_key(config: RunConfig) -> Key:
    """The key in the file of the settings; without one, the key that anybody can derive from the seed."""
    if config.coordinator_key:
        return keys.read(Path(config.coordinator_key))
    log(WARNING, "The coordinator's key is derived from the seed: anybody can compute it. For development only.")
    return keys.derive(config.seed, "coordinator")


def requester_key(config: RunConfig, member: Organisation) -> Key:
    """The key with which an organisation asks to be erased; raises ConfigError without it, or for another's."""
    if not config.requester_key and not member.derived:
        raise ConfigError(f"requester-key: expected the key file of {member.name}, got none")
    key = keys.read(Path(config.requester_key)) if config.requester_key else keys.derive(config.seed, member.name)
    if key.address != member.address:
        raise ConfigError(f"requester-key: expected that of {member.name} ({member.address}), got {key.address}")
    return key
