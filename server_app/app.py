"""The ServerApp: the one place where a federation's parts are put together.

It owns the run while it lives (a lock), founds or restores the federation, and leaves when the mode's work is done.
A failure is written to the event log as one line before it is raised: the CLI and Flower both report it.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from logging import ERROR, INFO, WARNING
from pathlib import Path

from flwr.app import Context
from flwr.common.logger import log
from flwr.serverapp import Grid, ServerApp

from agents import credit
from agents.rewards import Rewards
from chain.audit.run import verify
from chain.commitments import Commitment, Recorder, private_commitment
from chain.credits import Credits, CreditTree
from chain.ledger import EthereumLedger, open_ledger
from chain.private import PrivateLedger, PrivateRounds, open_private_ledger
from chain.queue import CommitQueue
from core import keys, lora
from core.aggregation import RULES
from core.canonical import Address, Digest
from core.config import CREDITED, RunConfig
from core.errors import ConfigError, FoedusError, LedgerUnreachableError, UsageError
from core.genesis import Genesis, PrivateChain
from core.keys import Domain, Key
from core.ledger import Ledger
from core.rounds import RoundRecord
from core.storage.events import EventLog
from core.storage.lock import locked
from core.storage.readers import Readers
from core.storage.run_folder import RunFolder
from core.storage.state_folder import State, new_run_id
from llm.served import shared_adapter
from llm.sources import load_base
from llm.tracking import Tracking
from provenance.attribution import DEFAULT
from provenance.served import trace
from server_app.binding import Bindings
from server_app.erasure.run import ErasureContext
from server_app.exchange import exchange, printable
from server_app.founding import GenesisInputs, check_unchanged, create_genesis
from server_app.measuring import Measuring, digest_of, validation_records
from server_app.revocations import watched
from server_app.rounds import Rounds
from server_app.strategy import Foedus

app = ServerApp()

_BIND_SECONDS = 120.0
_ANCHOR_SECONDS = 120.0
_RECEIPT_SECONDS = 300.0


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Do what the run-config's mode says."""
    config = RunConfig.from_flat(context.run_config)
    state = State.of(config)
    # What is only read is read as it was written: with the store and the key of the run's own settings.
    run = state.run(config.run or _chosen(state, config), config if config.mode == "train" else None)
    events = EventLog(state.events(run.name))
    log(INFO, "Run %s, state in %s", run.name, state.folder)
    with locked(state.lock(run.name)), _reporting(events):
        _MODES[config.mode](grid, Setting(config, state, run, events))


@contextmanager
def _reporting(events: EventLog) -> Iterator[None]:
    """Write a failure of the block to the event log, which belongs to whoever holds the run's lock."""
    try:
        yield
    except (FoedusError, OSError) as error:
        log(ERROR, "%s", error)
        events.write("failed", error=str(error), exit_code=getattr(error, "exit_code", 1))
        raise


@dataclass(frozen=True)
class Setting:
    """What every mode works with."""

    config: RunConfig
    state: State
    run: RunFolder
    events: EventLog


def _chosen(state: State, config: RunConfig) -> str:
    """The name of a new run to train, or of the newest to read or resume."""
    return new_run_id() if config.mode == "train" and not config.resume else state.existing().name


def _train(grid: Grid, setting: Setting) -> None:
    with _federation(grid, setting) as strategy:
        strategy.start(grid)
        setting.events.write("trained", aggregate=strategy.rounds.served.digest)
    setting.events.write("finished")


def _unlearn(grid: Grid, setting: Setting) -> None:
    """Erase an organisation, or records of it: from the records, and from what is served."""
    config, run = setting.config, setting.run
    if not run.started:
        raise UsageError(f"run {run.name} has no genesis: there is nobody to erase")
    organisation = run.genesis.named(config.organisation).address
    records = Path(config.records) if config.records else None
    with _federation(grid, setting, leaving=None if records else organisation) as strategy:
        strategy.unlearn(organisation, config.method, records)
    setting.events.write("finished")


def _requester_key(config: RunConfig, run: RunFolder, organisation: Address) -> Key:
    """The key with which an organisation asks to be erased; raises UsageError without it."""
    member = run.genesis.named(organisation)
    if not config.requester_key and not member.derived:
        raise ConfigError(f"requester-key is not set: the key file of {member.name}, who asks, is wanted")
    key = keys.read(Path(config.requester_key)) if config.requester_key else keys.derive(config.seed, member.name)
    if key.address != organisation:
        raise ConfigError(f"requester-key is of {key.address}, that of {member.name} ({organisation}) wanted")
    return key


def _attribute(_grid: Grid, setting: Setting) -> None:
    """Trace a response: nobody is asked, and no chain."""
    config, run = setting.config, setting.run
    only = run.genesis.named(config.organisation).address if config.organisation else None
    found = trace(run, config.prompt, config.response or None, config.method or DEFAULT, organisation=only)
    names = run.genesis.names
    who = names[found.response.verdict] if found.response.verdict else "nobody: the method abstains"
    log(INFO, "Taught by %s, confidence %.2f: %s", who, found.response.confidence, printable(found.text))
    setting.events.write("attributed", trace=found.to_dict(names))


_MODES: Mapping[str, Callable[[Grid, Setting], None]] = {
    "train": _train,
    "unlearn": _unlearn,
    "attribute": _attribute,
}


@contextmanager
def _federation(grid: Grid, setting: Setting, leaving: Address | None = None) -> Iterator[Foedus]:
    """The strategy over a new or restored run, with its rounds on their way to the chain.

    Erased organisations, and one that is `leaving`, need not be there.
    """
    config, run, state = setting.config, setting.run, setting.state
    if run.started and not config.resume and config.mode == "train":
        raise UsageError(f"run {run.name} exists already: choose another id, or resume it")
    state.remember(replace(config, run=run.name))
    validation = validation_records(config)
    key = _coordinator_key(config)
    chains = _chains(config, state.folder, key)
    model = load_base(config.base, config.quantisation, config.rank, config.alpha)
    fresh = shared_adapter(model, config.rank, config.seed)
    bindings = Bindings(Domain(chains.public.chain_id, chains.public.contract), key.address, run.name)
    bindings.wait(grid, _awaited(config, run, leaving), _BIND_SECONDS)
    inputs = GenesisInputs(model, fresh, digest_of(validation), bindings.domain, chains.to_fix(config))
    _begin_or_resume(config, run, inputs, key, bindings)
    chains.open_run(run.genesis)
    run.complete_copies()
    if not RULES[config.aggregation].trains_a:
        run.artifacts.put(lora.factor(fresh, "A"))
    tracking = Tracking(config.trackers, state.folder / "trackers", run.name, config.to_flat())
    members = [organisation.address for organisation in run.genesis.organisations]
    with _committing(run, chains) as commit, watched(chains.public, members) as revoked, tracking:
        measuring = Measuring.of(config, model, fresh, validation)
        rounds = Rounds(run, key, fresh, setting.events, commit, _rewards(setting, measuring))
        strategy = Foedus(rounds, bindings, measuring.losses, config.timeout, tracking.log, revoked)
        strategy.erasure = _erasure(grid, setting, chains, strategy)
        yield strategy
        if rounds.rewards and isinstance(chains.public, EthereumLedger):
            _post(Credits(chains.public.bound), run.genesis.digest, rounds.rewards)


def _begin_or_resume(config: RunConfig, run: RunFolder, inputs: GenesisInputs, key: Key, bindings: Bindings) -> None:
    """Write the genesis of a new run; raises where a run is resumed with other settings than its genesis has."""
    if not run.started:
        genesis = create_genesis(config, run.name, key.address, inputs, list(bindings.organisations.values()))
        public_keys = tuple(bindings.public_keys[member.address] for member in genesis.organisations)
        run.begin(genesis, Readers(key.public, public_keys, config.auditing))
    check_unchanged(config, inputs, run.genesis)


def _erasure(grid: Grid, setting: Setting, chains: "Chains", strategy: Foedus) -> ErasureContext:
    config, run = setting.config, setting.run
    return ErasureContext(
        rounds=strategy.rounds,
        bindings=strategy.bindings,
        ledger=chains.public,
        audit=lambda: verify(run, chains.public, private=chains.private_rounds, strict=True),
        requester=lambda organisation: _requester_key(config, run, organisation),
        basis=config.basis,
        train=lambda: strategy.start(grid),
        validate=strategy.validate,
        send=partial(exchange, grid, timeout=min(config.timeout, _RECEIPT_SECONDS)),
    )


def _awaited(config: RunConfig, run: RunFolder, leaving: Address | None) -> int:
    """How many organisations to wait for; 0 is as many as the nodes know of."""
    if not run.started or not config.organisations:
        return config.organisations
    lanes = range(len(run.genesis.lanes))
    staying = {member for lane in lanes for member in run.members(lane)}
    return len(staying - {leaving})


@dataclass(frozen=True)
class Chains:
    """The ledger that everyone reads, and the members' own, if there is one."""

    public: Ledger
    private: PrivateLedger | None
    private_rounds: PrivateRounds | None

    def to_fix(self, config: RunConfig) -> PrivateChain | None:
        """What the genesis says of the private chain."""
        if self.private is None:
            return None
        return PrivateChain(self.private.bound.chain_id, self.private.bound.address, config.anchor_every)

    def open_run(self, genesis: Genesis) -> None:
        """Open the run on every chain."""
        for ledger in (self.public, self.private):
            if ledger:
                ledger.open_run(genesis.digest, [organisation.address for organisation in genesis.organisations])


def _chains(config: RunConfig, state: Path, key: Key) -> Chains:
    public = open_ledger(config.chain, state, key)
    if config.private == "none":
        return Chains(public, None, None)
    private = open_private_ledger(config.private, state, key)
    return Chains(public, private, PrivateRounds(private, public.bound, config.anchor_every))


@contextmanager
def _committing(run: RunFolder, chains: Chains) -> Iterator[Callable[[RoundRecord], None]]:
    """What takes a run's rounds to the chains, old ones first.

    Leaving waits until every round stands there, unless by an exception; raises LedgerUnreachableError when that takes
    too long.
    """
    with ExitStack() as stack:
        public = stack.enter_context(_anchoring(run.queue, chains.public))
        rounds = chains.private_rounds
        private = stack.enter_context(_anchoring(run.private_queue, rounds)) if rounds else None

        def commit(record: RoundRecord) -> None:
            public.put(run.commitment(record))
            if private:
                private.put(private_commitment(record, run.salts(record)))

        salts_destroyed = run.salts_destroyed()
        for signed in run.records():
            if signed.value.admitted and signed.value.digest not in salts_destroyed:
                commit(signed.value)
        yield commit


@contextmanager
def _anchoring(path: Path, ledger: Recorder[Commitment]) -> Iterator[CommitQueue[Commitment]]:
    """A queue that is emptied before it is left, unless by an exception."""
    queue, patience = CommitQueue(path, ledger), 0.0
    try:
        yield queue
        patience = _ANCHOR_SECONDS + queue.pending()  # a second for each, when rounds were faster than the chain
    finally:
        missing = queue.close(patience)
    if missing:
        raise LedgerUnreachableError(f"{missing} rounds of {path.name} wait for their chain: resume to anchor them")


def _coordinator_key(config: RunConfig) -> Key:
    if config.coordinator_key:
        return keys.read(Path(config.coordinator_key))
    log(WARNING, "The coordinator's key is derived from the seed: anybody can compute it. For development only.")
    return keys.derive(config.seed, "coordinator")


def _rewards(setting: Setting, measuring: Measuring) -> Rewards | None:
    """What credits the rounds, where the policy needs it; raises ConfigError for a rule whose rounds cannot be."""
    config = setting.config
    if config.participation not in CREDITED:
        return None
    if config.aggregation not in credit.RULES:
        wanted = " or ".join(credit.RULES)
        raise ConfigError(f"participation {config.participation} needs aggregation {wanted}, got {config.aggregation}")
    return Rewards(setting.state.credits(setting.run.name), setting.run, config.pool, measuring.credit)


def _post(credits: Credits, run: Digest, rewards: Rewards) -> None:
    """Put the organisations' cumulative payments on the public chain, where each can claim its own by proof."""
    tree, (epoch, root) = CreditTree.of(run, rewards.cumulative()), credits.newest(run)
    if tree.cumulative and root != tree.root:
        credits.post(epoch + 1, tree)
