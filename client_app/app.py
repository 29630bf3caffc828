"""The ClientApp: bind, check, bid, train, evaluate, delete derived state, erase records.

A handler checks a message before it acts on it; what it raises is answered by a refusal (client_app/refusals.py).
"""

from collections import Counter
from contextlib import suppress

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client_app.agreement import Pins
from client_app.approvals import place_of
from client_app.checks import (
    check_federation,
    check_member,
    check_proposal,
    check_request,
    check_served,
    check_state,
)
from client_app.deletion import delete_derived_state
from client_app.dry_run import DryRun
from client_app.hosting import Host, Node, node_of
from client_app.local_round import RoundPlan, train_round, whole_round
from client_app.oversight import confirm, metrics
from client_app.privacy import private_round
from client_app.refusals import abstained, errors_stay_home, refused
from client_app.sent import Answers
from client_app.signing import signed, signed_reply
from core.adapter import AdapterState
from core.aggregation import RULES
from core.canonical import ZERO_DIGEST, Address, Digest
from core.composition import Composition
from core.errors import FormatError, LedgerUnreachableError, ObjectionError, UsageError
from core.generations import check_members
from core.genesis import Genesis
from core.messages import queries, training
from core.messages.queries import (
    AdmissionQuery,
    Bind,
    Bound,
    ConsentQuery,
    Deletion,
    DryRunQuery,
    OfferQuery,
    RecordsAnswer,
    RecordsQuery,
    RevealQuery,
)
from core.messages.refusal import Cause, Refused
from core.messages.training import Task
from core.round_key import RoundKey
from core.site_policy import SiteTerms
from core.update import ABSTAIN, Asked, Offer
from llm.determinism import environment
from llm.evaluate import evaluate as measure
from llm.model import Model
from llm.served import shared_adapter

app = ClientApp(mods=[errors_stay_home])

_BASE_LOSSES: dict[tuple[Digest, Address], float] = {}


@app.query("bind")
def bind(message: Message, context: Context) -> Message:
    """Answer with the organisations hosted here, each under its own signature on the challenge."""
    query = Bind.from_content(message.content)
    node = node_of(context)
    Pins.of(context.node_config).check_asked(query.asked, query.chain)
    if not node.known:  # in a deployment, where an organisation on another chain would object to every round
        with suppress(LedgerUnreachableError):
            node.oversight.check_contract(query.chain)
    for host in node.hosts.values():
        node.check_site(host)
    plain = node.registrations(query.asked, context.node_config)
    registrations = tuple(node.agreement(who).register(each, query.chain) for who, each in plain.items())
    return Answers(node, query.asked).answer(message, Bound(registrations, node.known).to_content())


@app.query("check")
def check(message: Message, context: Context) -> Message:
    """Answer with what a federation would meet here; nothing is signed, shown or written down."""
    query = DryRunQuery.from_content(message.content)
    return Message(DryRun(query, context).answer().to_content(), reply_to=message)


@app.query("reveal")
def reveal(message: Message, context: Context) -> Message:
    """Show the nonce to which the organisation has committed, for one set of members."""
    query = RevealQuery.from_content(message.content)
    node = node_of(context)
    nonce = node.agreement(query.organisation).reveal(query.registrations, query.chain)
    return Answers(node, query.registrations[0].value).answer(message, queries.revealed(nonce))


@app.query("consent")
def consent(message: Message, context: Context) -> Message:
    """Agree to the genesis of a federation, if it is what the organisation was shown and its settings want."""
    query = ConsentQuery.from_content(message.content)
    node = node_of(context)
    Pins.of(context.node_config).check(query.genesis)
    host = node.host(query.organisation)
    node.check_site(host, SiteTerms.of(query.genesis))
    check_member(query.genesis, host.organisation)
    agreed = node.agreement(query.organisation).consent(query.genesis)
    return Answers(node, query.genesis).answer(message, queries.consented(agreed))


@app.query("admission")
def admit(message: Message, context: Context) -> Message:
    """Agree to newcomers of the own federation, or to join one, where the settings and the site's policy allow it."""
    query = AdmissionQuery.from_content(message.content)
    node, genesis, proposal = node_of(context), query.genesis, query.proposal
    host, pins = node.host(query.organisation), Pins.of(context.node_config)
    joins = {member.address: member for member in proposal.joins}
    newcomer, openings = joins.get(host.key.address), [signed.verified(genesis) for signed in query.openings]
    pins.check_asked(Asked(genesis.coordinator, genesis.run, ZERO_DIGEST), genesis.chain)
    pins.check_members({*proposal.members, *joins})
    policy = node.check_site(host, SiteTerms.of(genesis))
    if newcomer and not host.key.derived:
        policy.check_joining(genesis)
    check_members(genesis, openings)
    check_proposal(genesis, proposal, openings)
    # A member that left is asked no more, and a newcomer only for what it registers.
    if newcomer and newcomer != host.organisation:
        raise ObjectionError(f"newcomer: expected {host.organisation}, got {newcomer}")
    if not newcomer and host.key.address not in proposal.members:
        raise ObjectionError(f"proposal: expected {host.key.address} among members or newcomers, got neither")
    agreement = node.agreement(query.organisation).admit(genesis, proposal)
    return Answers(node, genesis).answer(message, queries.agreed(agreement))


@app.query("offer")
def offer(message: Message, context: Context) -> Message:
    """Answer with the signed bid of the organisation's agent, which is asked apart from training."""
    query = OfferQuery.from_content(message.content)
    node = node_of(context)
    host, genesis = node.host(query.organisation), query.genesis
    node.agreement(query.organisation).check(genesis)
    node.check_site(host, SiteTerms.of(genesis))
    model = node.load_base(genesis)
    key = RoundKey(genesis.digest, query.lane, query.generation, query.round)
    try:
        steps = whole_round(genesis, query.organisation, model, node.records(host, genesis, query.lane))
        session = node.agency.open_session(genesis, query.organisation, key, steps, query.traffic)
        session.settle(query.paid)
        bid = session.offer()
    except (FormatError, UsageError) as error:
        return refused(message, context, Refused.ABSTAINED, error)
    unsigned = Offer(genesis.digest, query.organisation, query.lane, query.generation, query.round, bid)
    return Answers(node, genesis).answer(message, queries.offered(signed(unsigned, host, genesis)))


@app.query("delete")
def delete(message: Message, context: Context) -> Message:
    """Delete the organisation's derived state that knew an erased organisation; answer with a signed receipt."""
    query = Deletion.from_content(message.content)
    node = node_of(context)
    host = node.host(query.organisation)
    receipt = delete_derived_state(query, host, node)
    return Answers(node, query.genesis).answer(message, queries.deleted(receipt))


@app.query("records")
def erase_records(message: Message, context: Context) -> Message:
    """On the organisation's own request, answer which records it trains on; erase them when the query says so."""
    query = RecordsQuery.from_content(message.content)
    node = node_of(context)
    host = node.host(query.request.value.organisation)
    erased = node.erased_records(host, query.genesis)
    check_request(query, node.member(host, query.genesis), host.key)
    held = Counter(record.digest for record in erased.left(host.data.train))
    if query.forget:
        erased.note({record: held.pop(record) for record in query.records if record in held})
    gone = erased.counts()
    known = (tuple(record for record in query.records if record in records) for records in (held, gone))
    return Answers(node, query.genesis).answer(message, RecordsAnswer(*known).to_content())


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train a lane's state for one round on the organisation's own records, if the task holds."""
    task = Task.from_content(message.content)
    node = node_of(context)
    host = node.host(task.organisation)
    model, fresh = _checked_base(task, node, host)
    node.check_site(host).check_update(task.round)
    check_state(task, fresh)
    witness = node.oversight.check_records(task)
    key, parent = place_of(task)
    witness.check_open(key)
    standing = confirm(witness, task)
    if node.oversight.abstains(standing):
        return abstained(message, Cause.CHAIN_LATE, str(standing))
    made = node.held_updates(host, task.genesis).of(key, parent)
    if not made:
        records = node.records(host, task.genesis, task.lane)
        steps = whole_round(task.genesis, task.organisation, model, records)
        stage = task.genesis.training.stage(task.round, steps)
        try:
            bid, next_bid = node.agency.bids(task, stage.steps)
        except (FormatError, UsageError) as error:
            return refused(message, context, Refused.ABSTAINED, error)
        if bid == ABSTAIN:
            return abstained(message, Cause.PRICE, "its agent will not pay for this round")
        account, rounding = node.privacy(host, task.genesis), environment() | {"model": model.precision}
        private = private_round(task, bid, records, host.key, account, witness.trained, rounding)
        plan = RoundPlan(bid, stage, {**metrics(standing), **next_bid}, private)
        made = train_round(task, records, model, fresh, plan)
    content = signed_reply(*made, host, witness, task, node)
    return Answers(node, task.genesis).answer(message, content, made[0])


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Measure the base and the served adapters on the organisation's held-out records, in nats per answer token."""
    task = Task.from_content(message.content)
    node = node_of(context)
    host, genesis = node.host(task.organisation), task.genesis
    model, fresh = _checked_base(task, node, host)
    check_served(task, fresh)
    witness = node.oversight.check_records(task)
    confirm(witness, task)
    # The base never changes, so one measurement of it serves the whole process.
    key = genesis.digest, task.organisation
    if key not in _BASE_LOSSES:
        _BASE_LOSSES[key] = _loss(model, None, genesis, host)
    served = task.served.map(lambda state: RULES[genesis.rule].adapter(state, fresh))
    losses = {"base": _BASE_LOSSES[key], "global": _loss(model, served, genesis, host)}
    return Answers(node, genesis).answer(message, training.losses(losses))


def _checked_base(task: Task, node: Node, host: Host) -> tuple[Model, AdapterState]:
    """The base model and the adapter before any training, once they are those of the task's federation."""
    genesis = task.genesis
    node.agreement(task.organisation).check(genesis)
    node.check_site(host, SiteTerms.of(genesis)).check_hours()
    model = node.load_base(genesis)
    fresh = shared_adapter(model, genesis.rank, genesis.seed)
    check_federation(task, node.member(host, genesis), model.digest, fresh)
    return model, fresh


def _loss(model: Model, adapter: Composition | None, genesis: Genesis, host: Host) -> float:
    settings = genesis.training
    return measure(model, adapter, host.data.dev, settings.max_length, settings.evaluate_limit or None).loss
