"""The ServerApp: the composition root of a federation.

It owns the run while it lives (a lock), starts or restores the federation, and leaves when the mode's work is done.
A failure is written to the event log as one line before it is raised: the CLI and Flower both report it.
"""

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from importlib.metadata import version
from logging import ERROR, INFO
from pathlib import Path

from flwr.app import Context
from flwr.common.logger import log
from flwr.serverapp import Grid, ServerApp

from chain.audit.run import verify
from core import keys
from core.canonical import Address, Digest
from core.config import RunConfig
from core.errors import ConfigError, FoedusError, UsageError
from core.escape import one_line, redacted
from core.keys import Key
from core.messages.codec import BOUND_BYTES, SIMULATED_BOUND_BYTES
from core.messages.queries import DryRunQuery
from core.rotations import KeyChain
from core.storage.events import EventLog
from core.storage.lock import locked
from core.storage.run_folder import RunFolder
from core.storage.state_folder import State, new_run_id
from core.update import Asked
from llm import bases
from llm.model import Model
from llm.served import shared_adapter
from llm.sources import base_of_settings
from llm.tracking import Tracking
from provenance.attribution import DEFAULT
from provenance.served import trace
from server_app.binding import Bindings
from server_app.calibrating import calibrate_simulation
from server_app.chains import Chains
from server_app.coordinator_key import coordinator_key
from server_app.dry_run import dry_run
from server_app.erasure.steps import ErasureContext
from server_app.exchange import exchange
from server_app.founders import Founders
from server_app.founding import GenesisInputs, begin_or_resume
from server_app.measuring import Measuring, check_turns, digest_of, known_data
from server_app.membership import (
    carry_out,
    change,
    check_leaving,
    check_newcomer,
    gather,
    propose,
    signed_change,
    wait_for_newcomer,
)
from server_app.origin import store_beginning
from server_app.revocations import watched
from server_app.rotation import changes_of, replacing_key, rotation_of
from server_app.rounds import Rounds
from server_app.sample_answers import SampleAnswers
from server_app.strategy import Foedus
from server_app.streamed import StreamedEvents
from server_app.tasks import Waiting
from unlearning.requests import leave_of, request_of

app = ServerApp()

_SIMULATED_BIND_SECONDS = 900.0
"""A simulation's nodes are started by it, and import a model's libraries first: minutes on a busy machine."""
_RECEIPT_SECONDS = 300.0


@dataclass(frozen=True)
class RunContext:
    """The settings, folders and event log that every mode works with."""

    config: RunConfig
    state: State
    run: RunFolder
    events: EventLog


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Do the work of the run-config's mode."""
    config = RunConfig.from_flat(context.run_config)
    state = State.of(config)
    new = config.mode == "check" or (config.mode == "train" and not config.resume)
    name = config.run or (new_run_id() if new else state.existing().name)
    # A run that is only read is read as it was written: with the store and the key of its own settings.
    run = state.run(name, config if config.mode == "train" else None)
    events = StreamedEvents(state.events(run.name), state.run(run.name))
    log(INFO, "Run %s, state in %s", run.name, state.folder)
    with locked(state.lock(run.name)):
        try:
            MODES[config.mode](grid, RunContext(config, state, run, events))
        except (FoedusError, OSError) as error:
            # Within the lock: the event log belongs to its holder.
            log(ERROR, "%s", redacted(str(error)))
            events.write("failed", error=redacted(str(error)), exit_code=getattr(error, "exit_code", 1))
            raise


def train(grid: Grid, context: RunContext) -> None:
    """Train a new run, or the rounds that a resumed one lacks."""
    if (run := context.run).started:
        if not context.config.resume:
            raise UsageError(f"run {run.name} exists already: choose another id, or resume it")
        run.check_settled()  # the rounds of its generation are the erasure's to make
    with federation(grid, context) as strategy:
        strategy.start(grid)
        context.events.write("trained", aggregate=strategy.rounds.served.digest)
    context.events.write("finished")


def unlearn(grid: Grid, context: RunContext) -> None:
    """Erase an organisation, or records of it, from a run."""
    config, run = context.config, context.run
    if not run.started:
        raise UsageError(f"run {run.name} has no genesis: it has no organisation to erase")
    opened = request_of(config, run.genesis)
    request = opened.request.value
    with federation(grid, context, leaving=request.organisation if request.whole else None) as strategy:
        strategy.bindings.wait_for_answers(grid)  # whoever is there and slow is a holder, too
        strategy.unlearn(opened)
    context.events.write("finished")


def attribute(_grid: Grid, context: RunContext) -> None:
    """Trace a response; no organisation and no chain is asked."""
    config, run = context.config, context.run
    only = run.genesis.named(config.organisation).address if config.organisation else None
    traced = trace(run, config.prompt, config.response or None, config.method or DEFAULT, organisation=only)
    names, verdict = run.genesis.contributors, traced.response.verdict
    taught_by = names[verdict] if verdict else "nobody: the method abstains"
    log(INFO, "Taught by %s, confidence %.2f: %s", taught_by, traced.response.confidence, one_line(traced.text))
    context.events.write("attributed", trace=traced.to_dict(names))


def check(grid: Grid, context: RunContext) -> None:
    """Have the nodes of a deployment try what a federation would ask of them; none is founded."""
    config, state, events = context.config, context.state, context.events
    if not config.coordinator_key:
        raise ConfigError("mode check: expected coordinator-key, as a deployment has one, got none")
    chains = Chains.to_read(config, state.folder)
    challenge = Digest("0x" + secrets.token_hex(32))
    query = DryRunQuery(
        asked=Asked(coordinator_key(config).address, context.run.name, challenge),
        chain=chains.public.domain,
        base=bases.digest_of(bases.find(config.base)),
    )
    events.write("step", doing="waiting for the organisations' nodes, which load the base and do one step")
    for node in dry_run(grid, query, founders_of(config, chains), config.organisations, config.timeout):
        events.write(
            "checked",
            organisation=node.organisation,
            name=node.name,
            seconds=node.seconds,
            memory=node.memory,
            problems=list(node.problems),
        )
    events.write("finished")


def join(grid: Grid, context: RunContext) -> None:
    """Let an organisation join a run behind its newest round, if it and a quorum of the members agree."""
    config, run = context.config, context.run
    with changing(context) as (chains, key):
        bindings = bindings_of(context, chains, key)
        context.events.write("step", doing="waiting for the newcomer and the members")
        newcomer = wait_for_newcomer(bindings, grid, config.organisation, run.members(0), config.bind_timeout)
        check_newcomer(run, newcomer)
        proposal = propose(run, 0, [newcomer])
        admissions, refusals = gather(
            run, proposal, bindings.nodes, partial(exchange, grid, timeout=config.bind_timeout)
        )
        for who, reason in refusals.items():
            context.events.write("objected", round=len(run.lineage(0)), organisation=who, detail=one_line(reason))
        signed = signed_change(run, key, proposal, admissions=admissions)
        record = change(run, key, chains.public, signed)
        context.events.write("members", lane=0, generation=proposal.generation, members=list(record.members))
    context.events.write("finished")


def leave(_grid: Grid, context: RunContext) -> None:
    """Let an organisation leave a run behind its newest round; what it taught stays."""
    run = context.run
    signed = leave_of(context.config, run.genesis)
    with changing(context) as (chains, key):
        leaving = signed.verified(run.genesis).organisation
        check_leaving(run, leaving)
        for lane in run.genesis.lanes_of(leaving):
            record = change(run, key, chains.public, signed_change(run, key, propose(run, lane), leaves=[signed]))
            context.events.write("members", lane=lane, generation=record.place[1], members=list(record.members))
    context.events.write("finished")


def rotate(_grid: Grid, context: RunContext) -> None:
    """Replace the key of an organisation, or of the coordinator, behind a run's newest round."""
    config, run = context.config, _started(context.run)
    signed = rotation_of(config, run.genesis)
    own = signed.value.owner == run.genesis.coordinator
    if own and config.former_key:
        # Only a key that has read the run so far can seal it for the new one.
        context = replace(context, run=run.replacing(keys.read(Path(config.former_key)), coordinator_key(config)))
        run = context.run
    changes = changes_of(run, coordinator_key(config), signed)
    if own:
        mover = Chains.of(config, context.state.folder, replacing_key(config))
        mover.change_coordinator(run.genesis, signed.value.new)
    with changing(context) as (chains, key):
        for made in changes:
            record = change(run, key, chains.public, made)
            context.events.write(
                "members", lane=record.place[0], generation=record.place[1], members=list(record.members)
            )
    if own:
        context.state.change_key(run.name, config.coordinator_key, len(run.genesis.everyone))
    context.events.write("finished")


def _started(run: RunFolder) -> RunFolder:
    """The run, if it has members that can change; raises UsageError for one that has none."""
    if not run.started:
        raise UsageError(f"run {run.name} has no genesis: it has no members")
    return run


@contextmanager
def changing(context: RunContext) -> Iterator[tuple[Chains, Key]]:
    """The chains of a started run whose members are to change, with its rounds on their way to them, and its key.

    Raises UsageError for a run that has none.
    """
    config, run = context.config, _started(context.run)
    key = coordinator_key(config)
    chains = Chains.of(config, context.state.folder, key)
    take_up(run, chains)
    with chains.committing(run):
        carry_out(run, key, chains.public)
        yield chains, key


MODES: Mapping[str, Callable[[Grid, RunContext], None]] = {
    "train": train,
    "unlearn": unlearn,
    "attribute": attribute,
    "check": check,
    "join": join,
    "leave": leave,
    "rotate": rotate,
}


@contextmanager
def federation(grid: Grid, context: RunContext, leaving: Address | None = None) -> Iterator[Foedus]:
    """The strategy over a new or restored run, with its rounds on their way to the chains.

    Erased organisations, and one that is `leaving`, need not be there.
    """
    config, run, state = context.config, context.run, context.state
    state.remember(replace(config, run=run.name))
    # Cheapest first: bad data, keys and chains show before the base is loaded and organisations are waited for.
    former = state.existing(config.from_run) if config.from_run else None
    data, key = known_data(config), coordinator_key(config)
    chains = Chains.of(config, state.folder, key)
    context.events.write("step", doing=f"loading the base {config.base}")
    model = base_of_settings(config, run.genesis.template.date if run.started else "")
    check_turns(model, data)
    bindings = bindings_of(context, chains, key)
    context.events.write("step", doing="waiting for the organisations")
    patience = max(config.bind_timeout, _SIMULATED_BIND_SECONDS) if key.derived else config.bind_timeout
    bindings.wait(grid, awaited(config, run, leaving), patience)
    inputs = genesis_inputs(config, chains, model, digest_of(data.validation), former)
    for text in begin_or_resume(config, run, inputs, key, bindings, grid):
        context.events.write("warning", organisation="federation", detail=text)
    fresh = shared_adapter(model, config.rank, run.genesis.shared_seed)
    take_up(run, chains)
    store_beginning(run, fresh, former)
    tracking = Tracking(config.trackers, state.folder / "trackers", run.name, shown_settings(config))
    signing = {member.address: run.genesis.signing(member.address) for member in run.genesis.everyone}
    with chains.committing(run) as commit, watched(chains.public, signing) as revoked, tracking:
        carry_out(run, key, chains.public)  # a change of members that a crash left behind
        measuring = Measuring.of(config, model, fresh, data.validation)
        rewards = measuring.rewards(config, run)
        rounds = Rounds(run, key, fresh, context.events, commit, rewards, measuring if data.validation else None)
        strategy = Foedus(rounds, bindings, measuring.losses, waiting_of(config), tracking.log, revoked)
        strategy.erasure = erasure_context(grid, context, chains, strategy)
        strategy.samples = SampleAnswers.of(config, model, fresh, data, context.events)
        yield strategy
        calibrate_simulation(config, rounds, model)
        chains.post(run, rewards)


def genesis_inputs(
    config: RunConfig, chains: Chains, model: Model, validation: Digest, former: RunFolder | None
) -> GenesisInputs:
    """What a genesis needs besides settings and members."""
    return GenesisInputs(
        model=model,
        validation=validation,
        chain=chains.public.domain,
        private=chains.private_chain(config.anchor_every),
        administrator=chains.public.administrator(),
        former=former,
    )


def take_up(run: RunFolder, chains: Chains) -> None:
    """Open a run on its chains, and store the copies of its documents that a crash has left out."""
    chains.open_run(run.genesis)
    run.complete_copies()


def bindings_of(context: RunContext, chains: Chains, key: Key) -> Bindings:
    """The bindings of a run, before anybody is asked."""
    config, run = context.config, context.run
    founders = Founders() if run.started else founders_of(config, chains)
    domain = chains.public.domain
    # In a simulation, whose keys are derived, one node may host thousands.
    most = SIMULATED_BOUND_BYTES if key.derived else BOUND_BYTES

    def note(node: int, reason: str) -> None:
        # As text: a node's id is larger than what canonical JSON holds.
        context.events.write("bind-failed", node=str(node), detail=reason)

    def differs(organisation: Address, product: str) -> None:
        detail = f"expected {here}, as here, got {product or 'none'}"
        context.events.write("other-version", organisation=organisation, detail=detail)

    here = f"foedus {version('foedus')}"
    # Whoever pins the coordinator pins the address that a run was founded with, whatever key signs for it now.
    coordinator, chain = (run.genesis.coordinator, run.genesis.keys) if run.started else (key.address, KeyChain())
    return Bindings(domain, coordinator, run.name, founders, chain, most=most, note=note, product=here, differs=differs)


def founders_of(config: RunConfig, chains: Chains) -> Founders:
    """Who may found a federation by its settings."""
    registry = chains.registered if config.require_registration else None
    return Founders(config.listed, registry, config.most_examples, own_keys=bool(config.coordinator_key))


def waiting_of(config: RunConfig) -> Waiting:
    """How long rounds wait."""
    return Waiting(**{item.name: getattr(config, item.name) for item in fields(Waiting)})


def awaited(config: RunConfig, run: RunFolder, leaving: Address | None) -> int:
    """The number of organisations to wait for; 0 is as many as the nodes know of."""
    if not run.started:
        return config.organisations
    staying = {member for lane in range(len(run.genesis.lanes)) for member in run.members(lane)}
    return len(staying - {leaving})


def shown_settings(config: RunConfig) -> dict[str, bool | int | float | str]:
    """The settings for trackers, without the secrets in their URLs."""
    return {name: redacted(value) if isinstance(value, str) else value for name, value in config.to_flat().items()}


def erasure_context(grid: Grid, context: RunContext, chains: Chains, strategy: Foedus) -> ErasureContext:
    """The federation as an erasure needs it."""
    config, run = context.config, context.run
    return ErasureContext(
        rounds=strategy.rounds,
        bindings=strategy.bindings,
        ledger=chains.public,
        audit=lambda: verify(run, chains.public, private=chains.private_rounds, strict=True),
        train=lambda: strategy.start(grid),
        validate=strategy.validate,
        # A round may take hours; a holder that is silent must not hold up an erasure for as long.
        send=partial(exchange, grid, timeout=min(config.timeout, _RECEIPT_SECONDS)),
    )
