"""Founding a federation: the genesis fixes everything that must not change later."""

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from logging import WARNING
from typing import Any

from flwr.common.logger import log
from flwr.serverapp import Grid

from core import lora
from core.aggregation import by_address
from core.canonical import Address, Digest
from core.config import RunConfig, key
from core.errors import ConfigError, DataError, FormatError, ModelError, RunError
from core.founding import Founding
from core.genesis import Base, Genesis, PrivateChain, Template
from core.keys import Domain, Key, address_of
from core.lanes import partition
from core.names import check_distinct, listed
from core.origins import FormerRun
from core.policies import most_asked, never_asked
from core.privacy import PrivacyPlan
from core.seeds import from_nonces
from core.storage.readers import Readers
from core.storage.run_folder import RunFolder
from core.update import Organisation
from llm.determinism import environment
from llm.model import Model
from llm.served import shared_adapter
from server_app.binding import Bindings
from server_app.exchange import exchange
from server_app.founders import consents, nonces
from server_app.origin import check_descends, origin_of

_AS_SET = (
    "rank",
    "alpha",
    "rslora",
    "composition",
    "norm_bound",
    "server_rate",
    "membership",
    "training",
    "serve",
    "patience",
    "staleness",
    "wire",
)
"""The settings that a genesis has under the same names."""


@dataclass(frozen=True)
class GenesisInputs:
    """The parts of a genesis besides settings and members.

    The base model, the digest of the shared validation set, and the chains.
    """

    model: Model
    validation: Digest
    chain: Domain
    private: PrivateChain | None = None
    administrator: Address | None = None
    former: RunFolder | None = None
    """The run whose served adapter a new one begins with."""

    @property
    def origin(self) -> FormerRun | None:
        """What a genesis names of that run; raises ConfigError for one that none can go on from."""
        return origin_of(self.former) if self.former else None


def begin_or_resume(
    config: RunConfig, run: RunFolder, inputs: GenesisInputs, coordinator: Key, bindings: Bindings, grid: Grid
) -> list[str]:
    """Write the genesis of a new run for the bound organisations, or check that a run is resumed as it began.

    Returns what its user may not expect of a new one, which is logged, too. Raises as `agree`, `check_unchanged` and
    `check_not_grown` do.
    """
    resumed = run.started
    if not resumed:
        genesis, founding = agree(config, run.name, coordinator.address, inputs, bindings, grid)
        public_keys = tuple(bindings.public_keys[member.address] for member in genesis.organisations)
        run.begin(genesis, Readers(coordinator.public, public_keys, config.auditing), founding)
    check_unchanged(config, inputs, run.genesis)
    if resumed:
        check_not_grown(run.genesis, bindings.organisations.values())
    unexpected = [] if resumed else warnings(run.genesis)
    for text in unexpected:
        log(WARNING, "%s", text)
    return unexpected


def agree(
    config: RunConfig, run: str, coordinator: Address, inputs: GenesisInputs, bindings: Bindings, grid: Grid
) -> tuple[Genesis, Founding]:
    """The genesis of a new federation, and what its members signed for it.

    In a simulation the seed is set; else the members draw it together, and each agrees to the genesis. Whoever does not
    is dropped, and the others begin anew, with whoever comes in its place. Raises RunError when nobody is left, and as
    `create_genesis` does.
    """
    send = partial(exchange, grid, timeout=config.bind_timeout)
    while registrations := bindings.present:
        members = [signed.value.organisation for signed in registrations]
        derived = [member.address for member in members if member.derived]
        if len(derived) == len(members):
            return create_genesis(config, run, coordinator, inputs, members), Founding(tuple(registrations))
        if derived:
            bindings.drop(derived, "has a derived key, which anybody can compute")
            continue
        nodes, refusals = bindings.nodes, dict[Address, str]()
        if len(shown := nonces(registrations, nodes, bindings.domain, send, refusals)) == len(members):
            drawn = tuple(shown[member.address] for member in members)
            genesis = create_genesis(config, run, coordinator, inputs, members, drawn)
            if len(agreed := consents(genesis, nodes, send, refusals)) == len(members):
                return genesis, Founding(tuple(registrations), tuple(agreed[m.address] for m in members))
            missing, what = [m.address for m in members if m.address not in agreed], "did not agree to the genesis"
        else:
            missing, what = [m.address for m in members if m.address not in shown], "did not show its nonce"
        for who in missing:
            bindings.drop([who], f"{what}: {refusals.get(who, 'it did not answer')}")
        bindings.rebind(grid)
    raise RunError(f"expected members who agree, got none: {bindings.failure}")


def create_genesis(
    config: RunConfig, run: str, coordinator: Address, inputs: GenesisInputs,
    members: Sequence[Organisation], nonces: tuple[Digest, ...] = (),
) -> Genesis:  # fmt: skip
    """The genesis of a new federation, with the seed of its members' nonces, or of the settings when there are none.

    Raises ConfigError for settings that cannot work with these members, RunError for two members of one name.
    """
    organisations = tuple(sorted(members, key=lambda member: by_address(member.address)))
    check_members(config, organisations)
    check_feasible(config, inputs.model, len(organisations))
    seed, spec = from_nonces(nonces) if nonces else config.seed, inputs.model.spec
    fresh = shared_adapter(inputs.model, config.rank, origin.seed if (origin := inputs.origin) else seed)
    genesis = Genesis(
        **{name: getattr(config, name) for name in _AS_SET},
        run=run,
        salt=secrets.token_hex(32),
        coordinator=coordinator,
        chain=inputs.chain,
        private=inputs.private,
        administrator=inputs.administrator,
        origin=origin,
        base=Base(config.base, inputs.model.digest, config.quantisation),
        shared_a=lora.factor(fresh, "A").digest,
        rule=config.aggregation,
        lanes=partition([organisation.address for organisation in organisations], config.lane_size, config.shards),
        organisations=organisations,
        validation=inputs.validation,
        auditors=tuple(map(address_of, config.auditing)),
        seed=seed,
        nonces=nonces,
        participation=config.participating,
        robust=config.robustness,
        privacy=config.privacy,
        environment=environment(),
        target_modules=spec.modules,
        target_blocks=spec.blocks,
        template=Template(date=spec.date),
    )
    return possible(genesis, inputs.former)


def possible(genesis: Genesis, former: RunFolder | None) -> Genesis:
    """The genesis; raises ConfigError for one that no node could train under, or that a former run does not lead to."""
    if former:
        check_descends(genesis, former.genesis)
    for member in genesis.organisations:
        if plan := PrivacyPlan.of(genesis, member.address):
            _ = plan.noise  # an ε that no noise reaches would fail every node in round 1
    return genesis


def warnings(genesis: Genesis) -> list[str]:
    """What a user may not expect of a new federation: members that no round will ask."""
    unasked = [genesis.names[address] for address in never_asked(genesis)]
    if not unasked:
        return []
    rounds = genesis.training.rounds
    plural = "" if rounds == 1 else "s"
    return [
        f"{listed(unasked)}: no turn in {rounds} round{plural} of policy {genesis.participation.policy}: "
        "raise rounds or fraction, or set participation all"
    ]


def check_not_grown(genesis: Genesis, members: Iterable[Organisation]) -> None:
    """Raise DataError when an organisation of a simulation has more records than it founded with.

    It would object to every message, since its count is not the genesis's. With fewer it may have erased some; and in a
    deployment the others go on without one whose data are not those of before.
    """
    registered = {organisation.address: organisation for organisation in genesis.organisations}
    for member in members:
        known = registered.get(member.address)
        if known and known.derived and member.examples > known.examples:
            raise DataError(
                f"{member.name}: expected the {known.examples} training records that the run was founded with, "
                f"got {member.examples}: take the new ones out, or start a new run"
            )


def check_unchanged(config: RunConfig, inputs: GenesisInputs, genesis: Genesis) -> None:
    """Raise when a run is resumed with settings or inputs that its genesis does not have.

    ConfigError, ModelError for the base, or DataError for the shared validation set.
    """
    # A seed that was drawn is nobody's setting.
    fixed = _fixed(genesis) | ({} if genesis.nonces else {"seed": genesis.seed})
    for name, expected in fixed.items():
        if (got := getattr(config, name)) != expected:
            raise ConfigError(f"{key(name)}: expected {expected!r}, as in the genesis, got {got!r}")
    members = [organisation.address for organisation in genesis.organisations]
    # The genesis holds the lanes themselves, not the size that they were made with.
    if partition(members, config.lane_size, config.shards) != genesis.lanes:
        size = len(genesis.lanes[0])
        raise ConfigError(f"lane-size: expected lanes of {size}, as in the genesis, got {config.lane_size}")
    auditors, spec = tuple(map(address_of, config.auditing)), inputs.model.spec
    for error, what, expected, got in (
        (ModelError, f"base model {config.base}", genesis.base.digest, inputs.model.digest),
        (ConfigError, "target-modules", genesis.target_modules, spec.modules),
        (ConfigError, "target-blocks", genesis.target_blocks, spec.blocks),
        (DataError, "validation set", genesis.validation, inputs.validation),
        (ConfigError, "private-chain", genesis.private, inputs.private),
        (ConfigError, "auditors", genesis.auditors, auditors),
        (ConfigError, "from-run", genesis.origin.run if genesis.origin else "none", config.from_run or "none"),
        (ConfigError, f"chain {config.chain!r}", genesis.chain, inputs.chain),
    ):
        if got != expected:
            raise error(f"{what}: expected {expected}, as in the genesis, got {got}")


def _fixed(genesis: Genesis) -> dict[str, Any]:
    """The settings, by the names of their fields, that a genesis fixes as they were given."""
    return {
        "quantisation": genesis.base.quantisation,
        "rank": genesis.rank,
        "alpha": genesis.alpha,
        "rslora": genesis.rslora,
        "aggregation": genesis.rule,
        "membership": genesis.membership,
        "shards": len(genesis.lanes_of(genesis.organisations[0].address)),
        "composition": genesis.composition,
        "norm_bound": genesis.norm_bound,
        "robustness": genesis.robust,
        "privacy": genesis.privacy,
        "server_rate": genesis.server_rate,
        "serve": genesis.serve,
        "patience": genesis.patience,
        "staleness": genesis.staleness,
        "participation": genesis.participation.policy,
        "fraction": genesis.participation.fraction,
        "quorum": genesis.participation.quorum,
        "retries": genesis.participation.retries,
        **asdict(genesis.training),
    }


def check_members(config: RunConfig, organisations: Sequence[Organisation]) -> None:
    """Raise RunError or ConfigError for members that cannot be told apart, or keys that prove nothing."""
    try:
        check_distinct(organisation.name for organisation in organisations)
    except FormatError as error:
        raise RunError(str(error)) from error
    if len({organisation.derived for organisation in organisations}) > 1:
        raise RunError("some organisations use derived keys, which anybody can compute, and some do not")
    most = max(organisation.examples for organisation in organisations)
    if config.privacy and (wrong := config.privacy.fault(config.aggregation, most)):
        raise ConfigError(f"dp-delta: {wrong}")
    if not config.coordinator_key and not organisations[0].derived:
        raise ConfigError(
            "coordinator-key is not set: among organisations with keys of their own, a derived one is no key"
        )


def check_feasible(config: RunConfig, model: Model, members: int) -> None:
    """Raise ConfigError at the start for settings that would fail later."""
    if config.shards > 1 and config.lane_size != 1:
        raise ConfigError(f"shards is {config.shards}: expected lane-size 1 with it, got {config.lane_size}")
    if config.shards > 1 and config.participation == "q-learning":
        raise ConfigError(f"shards is {config.shards} with participation q-learning: an agent bids for one lane")
    isolated = 0 < config.lane_size < members or config.shards > 1
    if isolated and config.composition == "sum" and config.aggregation != "frozen-a":
        raise ConfigError(
            f"lane-size {config.lane_size}: expected aggregation frozen-a, got {config.aggregation}, whose lanes have "
            "no sum: use composition ensemble or routing"
        )
    if not isolated and config.composition != "sum":
        raise ConfigError(
            f"composition {config.composition}: expected lane-size 1 to {members - 1}, got {config.lane_size}"
        )
    side, size = min(min(shape) for shape in model.modules.values()), min(config.lane_size or members, members)
    rank = config.rank * most_asked(config.participating, size) * config.rounds
    if config.aggregation == "stack" and rank > side:
        raise ConfigError(
            f"stack: expected a rank of at most {side}, the base's smallest layer, got {rank} in the end: lower rank "
            "or rounds, or ask fewer in a round"
        )
    smallest = members % size or size
    if config.quorum > smallest:
        raise ConfigError(f"quorum: expected at most {smallest}, the members of the smallest lane, got {config.quorum}")
