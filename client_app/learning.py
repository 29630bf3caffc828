"""Learning: the ClientApp's answers that need the base model: a dry run, a bid, training and evaluation.

Imported when the first of them is asked for, since torch and the base's libraries take ten seconds.
"""

from contextlib import suppress
from functools import partial

from flwr.app import Context, Message, RecordDict, UserConfig

from client_app.approvals import place_of
from client_app.checks import check_federation, check_served, check_state
from client_app.dry_run import DryRun
from client_app.hosting import Host, Node, Places, node_of
from client_app.local_round import RoundPlan, train_round, whole_round
from client_app.oversight import confirm, metrics
from client_app.privacy import private_round
from client_app.refusals import abstained, refused
from client_app.sent import Answers
from client_app.signing import signed, signed_reply
from core.adapter import AdapterState
from core.aggregation import RULES
from core.canonical import Address, Digest
from core.composition import Composition
from core.errors import DataError, FormatError, UsageError
from core.genesis import Genesis
from core.messages import queries, training
from core.messages.federation import keep
from core.messages.queries import DryRunQuery, OfferQuery
from core.messages.refusal import Cause, Refused
from core.messages.training import Task
from core.round_key import RoundKey
from core.site_policy import SiteTerms
from core.update import ABSTAIN, Offer
from llm.bases import find
from llm.batches import check_turns
from llm.determinism import environment
from llm.evaluate import evaluate as measure
from llm.model import Model, tokenizer_in
from llm.served import shared_adapter
from llm.sources import base_of_genesis

_BASE_LOSSES: dict[tuple[Digest, Address], float] = {}


def check_data(own: UserConfig) -> None:
    """Check, before a deployed node starts, that its base's chat template takes the turns of its data.

    Raises DataError with file and line of a record that it refuses, ModelError for a base without a tokenizer.
    """
    places = Places.of(own)
    data = places.records()
    check_turns(tokenizer_in(find(places.base)), (*data.train, *data.dev))


def check(message: Message, context: Context) -> Message:
    """Answer with what a federation would meet here; nothing is signed, shown or written down."""
    query = DryRunQuery.from_content(message.content)
    return Message(DryRun(query, context).answer().to_content(), reply_to=message)


def offer(message: Message, context: Context) -> Message:
    """Answer with the signed bid of the organisation's agent, which is asked apart from training."""
    node = node_of(context)
    query = OfferQuery.from_content(message.content, node.oversight.state.federations)
    genesis = query.genesis
    host = node.host(query.organisation, genesis)
    node.agreement(host).check(genesis)
    node.check_site(host, SiteTerms.of(genesis))
    keep(genesis, node.oversight.state.federations)
    model = base_of_genesis(genesis, node.base)
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


def train(message: Message, context: Context) -> Message:
    """Train a lane's state for one round on the organisation's own records, if the task holds."""
    node = node_of(context)
    task = Task.from_content(message.content, node.oversight.state.federations)
    host = node.host(task.organisation, task.genesis)
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
        account = node.privacy(host, task.genesis)
        private = private_round(
            task, bid, records, host.key, account, witness.trained, lambda: environment() | {"model": model.precision}
        )
        pack = partial(node.feedback(host, task.genesis, task.lane).pack, key=key)
        plan = RoundPlan(bid, stage, {**metrics(standing), **next_bid}, private, pack)
        made = train_round(task, records, model, fresh, plan)
    measured = RecordDict()
    if task.measure:
        with suppress(DataError):  # whoever has no held-out record trains all the same
            measured = training.losses(_losses(task, model, fresh, host))
    content = RecordDict({**signed_reply(*made, host, witness, task, node), **measured})
    return Answers(node, task.genesis).answer(message, content, made[0])


def evaluate(message: Message, context: Context) -> Message:
    """Measure the base and the served adapters on the organisation's held-out records, in nats per answer token."""
    node = node_of(context)
    task = Task.from_content(message.content, node.oversight.state.federations)
    host = node.host(task.organisation, task.genesis)
    model, fresh = _checked_base(task, node, host)
    check_served(task, fresh)
    witness = node.oversight.check_records(task)
    confirm(witness, task)
    return Answers(node, task.genesis).answer(message, training.losses(_losses(task, model, fresh, host)))


def _losses(task: Task, model: Model, fresh: AdapterState, host: Host) -> dict[str, float]:
    """The losses on held-out records of the base, and of the adapters that a task shows."""
    genesis = task.genesis
    # The base never changes, so one measurement of it serves the whole process.
    key = genesis.digest, task.organisation
    if key not in _BASE_LOSSES:
        _BASE_LOSSES[key] = _loss(model, None, genesis, host)
    served = task.served.map(lambda state: RULES[genesis.rule].adapter(state, fresh))
    return {"base": _BASE_LOSSES[key], "global": _loss(model, served, genesis, host)}


def _checked_base(task: Task, node: Node, host: Host) -> tuple[Model, AdapterState]:
    """The base model and the adapter before any training, once they are those of the task's federation."""
    genesis = task.genesis
    node.agreement(host).check(genesis)
    node.check_site(host, SiteTerms.of(genesis)).check_hours()
    model = base_of_genesis(genesis, node.base)
    fresh = shared_adapter(model, genesis.rank, genesis.shared_seed)
    check_federation(task, node.member(host, genesis), model.digest, fresh)
    keep(genesis, node.oversight.state.federations)
    return model, fresh


def _loss(model: Model, adapter: Composition | None, genesis: Genesis, host: Host) -> float:
    settings = genesis.training
    return measure(model, adapter, host.data.dev, settings.max_length, settings.evaluate_limit or None).loss
