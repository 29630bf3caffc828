"""How a federation is founded: everything that must not change later, written down once."""

import platform
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version

import torch

from core import lora
from core.adapter import AdapterState
from core.aggregation import by_address
from core.canonical import Address, Digest
from core.config import RunConfig, key
from core.errors import ConfigError, DataError, ModelError, RunError
from core.genesis import Base, Genesis, PrivateChain
from core.keys import Domain, address_of
from core.lanes import partition
from core.update import Organisation
from llm.model import Model

_VERSIONS = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "numpy", "flwr")


@dataclass(frozen=True)
class GenesisInputs:
    """What a genesis is made of besides settings and members.

    The base model, the adapter before any training, the digest of the shared validation set, and the chains.
    """

    model: Model
    fresh: AdapterState
    validation: Digest
    chain: Domain
    private: PrivateChain | None = None


def create_genesis(
    config: RunConfig, run: str, coordinator: Address, inputs: GenesisInputs, members: Sequence[Organisation]
) -> Genesis:
    """The genesis of a new federation.

    Raises ConfigError for settings that cannot work with these members, RunError for two members of one name.
    """
    organisations = tuple(sorted(members, key=lambda member: by_address(member.address)))
    _check_members(config, organisations)
    _check_feasible(config, inputs.model, len(organisations))
    return Genesis(
        run=run,
        salt=secrets.token_hex(32),
        coordinator=coordinator,
        chain=inputs.chain,
        private=inputs.private,
        base=Base(config.base, inputs.model.digest, config.quantisation),
        rank=config.rank,
        alpha=config.alpha,
        shared_a=lora.factor(inputs.fresh, "A").digest,
        rule=config.aggregation,
        lanes=partition([organisation.address for organisation in organisations], config.lane_size, config.shards),
        composition=config.composition,
        organisations=organisations,
        validation=inputs.validation,
        auditors=tuple(map(address_of, config.auditing)),
        seed=config.seed,
        training=config.training,
        participation=config.participating,
        norm_bound=config.norm_bound,
        environment=environment(),
    )


def check_unchanged(config: RunConfig, inputs: GenesisInputs, genesis: Genesis) -> None:
    """Raise when a run is resumed with settings or inputs that its genesis does not have.

    ConfigError, ModelError for the base, or DataError for the shared validation set.
    """
    wanted = {
        "base": genesis.base.name,
        "quantisation": genesis.base.quantisation,
        "rank": genesis.rank,
        "alpha": genesis.alpha,
        "aggregation": genesis.rule,
        "shards": len(genesis.lanes_of(genesis.organisations[0].address)),
        "composition": genesis.composition,
        "seed": genesis.seed,
        "norm_bound": genesis.norm_bound,
        "participation": genesis.participation.policy,
        "fraction": genesis.participation.fraction,
        "quorum": genesis.participation.quorum,
        "retries": genesis.participation.retries,
        **asdict(genesis.training),
    }
    for name, value in wanted.items():
        if (got := getattr(config, name)) != value:
            raise ConfigError(f"{key(name)} is {got!r}, the run was founded with {value!r}")
    members = [organisation.address for organisation in genesis.organisations]
    if partition(members, config.lane_size, config.shards) != genesis.lanes:
        raise ConfigError(f"lane-size is {config.lane_size}, the run was founded with lanes of {len(genesis.lanes[0])}")
    if (base := inputs.model.digest) != genesis.base.digest:
        raise ModelError(f"base model {config.base} is {base}, the run was founded with {genesis.base.digest}")
    if inputs.validation != genesis.validation:
        raise DataError(f"the validation set is {inputs.validation}, the run was founded with {genesis.validation}")
    if inputs.private != genesis.private:
        raise ConfigError(f"private-chain is {inputs.private}, the run was founded with {genesis.private}")
    if (got := tuple(map(address_of, config.auditing))) != genesis.auditors:
        raise ConfigError(f"auditors are {got}, the run was founded with {genesis.auditors}")
    if (chain := inputs.chain) != genesis.chain:
        raise ConfigError(
            f"chain {config.chain!r} has id {chain.chain_id} and contract {chain.contract}, "
            f"the run was founded with {genesis.chain.chain_id} and {genesis.chain.contract}"
        )


def environment() -> dict[str, str]:
    """What bit-equal training depends on: versions, instruction set, threads."""
    versions = {name: version(name) for name in _VERSIONS}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return versions | {
        "python": platform.python_version(),
        "instruction-set": torch.backends.cpu.get_cpu_capability(),
        "device": device,
        "threads": "1",
    }


def _check_members(config: RunConfig, organisations: Sequence[Organisation]) -> None:
    names = [organisation.name for organisation in organisations]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise RunError(f"two organisations are called {twice[0]!r}, different names wanted")
    if len({organisation.derived for organisation in organisations}) > 1:
        raise RunError("some organisations use derived keys, which anybody can compute, and some do not")
    if not config.coordinator_key and not organisations[0].derived:
        raise ConfigError(
            "coordinator-key is not set: among organisations with keys of their own, a derived one is no key"
        )


def _check_feasible(config: RunConfig, model: Model, members: int) -> None:
    """Refuse at the start what would fail later."""
    if config.shards > 1 and config.lane_size != 1:
        raise ConfigError(f"shards is {config.shards} with lane-size {config.lane_size}, lane-size 1 wanted")
    if config.shards > 1 and config.participation == "q-learning":
        raise ConfigError(f"shards is {config.shards} with participation q-learning: an agent bids for one lane")
    apart = 0 < config.lane_size < members or config.shards > 1
    if apart and config.composition == "sum" and config.aggregation != "frozen-a":
        raise ConfigError(
            f"lane-size {config.lane_size} needs aggregation frozen-a, got {config.aggregation}: lanes of another rule "
            "have no sum, composition ensemble or routing serves them"
        )
    if not apart and config.composition != "sum":
        expected = f"expected lane-size 1 to {members - 1}, got {config.lane_size}"
        raise ConfigError(f"composition {config.composition} needs lanes: {expected}")
    side = min(min(shape) for shape in model.modules.values())
    rank = config.rank * members * config.rounds
    if config.aggregation == "stack" and rank > side:
        raise ConfigError(f"stack would grow to rank {rank}, at most {side} fits the base's smallest layer")
    if config.quorum > members:
        raise ConfigError(f"quorum is {config.quorum}, at most the {members} organisations there are")
