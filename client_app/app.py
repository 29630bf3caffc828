"""The ClientApp: bind, bid, train, evaluate, delete derived state, erase records.

Training is a pure function of (base, parent state, data, seed, round, bid): nothing is kept between rounds, and the
base model, loaded once per process, is never changed.
"""

import math
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client_app.checks import check_federation, check_request, check_served, check_state
from client_app.deletion import delete_derived_state
from client_app.hosting import Host, Node, node_of
from client_app.oversight import confirm, metrics
from client_app.signing import signed_reply
from core import lora, seeds
from core.adapter import AdapterState
from core.aggregation import RULES, rank_of
from core.canonical import Address, Digest
from core.composition import Composition
from core.errors import FormatError, IntegrityError, LedgerError, UsageError
from core.genesis import Genesis, Stage
from core.messages import codec, queries, training
from core.messages.queries import Bind, Bound, Deletion, OfferQuery, RecordsAnswer, RecordsQuery
from core.messages.refusal import Refusal, Refused
from core.messages.training import Task
from core.round_key import RoundKey
from core.update import ABSTAIN, Bid, Offer, Registration, UpdateManifest
from llm.evaluate import evaluate as measure
from llm.model import Model
from llm.records import Record
from llm.served import shared_adapter
from llm.sources import load_base
from llm.train import TrainConfig, steps_of, untrained
from llm.train import train as fit

app = ClientApp()

_OBJECTIONABLE = (IntegrityError, FormatError, LedgerError)
"""What checking the coordinator may find; everything else is a failure of one's own."""
_BASE_LOSSES: dict[tuple[Digest, Address], float] = {}


@app.query("bind")
def bind(message: Message, context: Context) -> Message:
    """Answer who is hosted here, each organisation with its own signature on the challenge."""
    query = Bind.from_content(message.content)
    node = node_of(context)
    asked, product = query.asked, f"foedus {version('foedus')}"
    signed = (
        Registration(host.organisation, asked.coordinator, asked.run, asked.challenge, product=product).sign(
            host.key, query.chain
        )
        for host in node.hosts.values()
    )
    return Message(Bound(tuple(signed), node.known).to_content(), reply_to=message)


@app.query("offer")
def offer(message: Message, context: Context) -> Message:
    """Answer with the signed bid of the organisation's agent, which is asked apart from training."""
    query = OfferQuery.from_content(message.content)
    node = node_of(context)
    host, genesis = node.host(query.organisation), query.genesis
    model = load_base(genesis.base.name, genesis.base.quantisation, genesis.rank, genesis.alpha)
    key = RoundKey(genesis.digest, query.lane, query.generation, query.round)
    try:
        steps = _steps(genesis, model, node.records(host, genesis, query.lane))
        session = node.agency.open_session(genesis, query.organisation, key, steps, query.traffic)
        session.settle(query.paid)
        bid = session.offer()
    except (FormatError, UsageError) as error:
        return _refusal(message, Refused.ABSTAINED, f"its agent cannot be asked: {error}")
    made = Offer(genesis.digest, query.organisation, query.lane, query.generation, query.round, bid)
    return Message(queries.offered(made.sign(host.key, genesis.chain)), reply_to=message)


@app.query("delete")
def delete(message: Message, context: Context) -> Message:
    """Delete the organisation's derived state that knew an erased organisation; answer with a signed receipt."""
    query = Deletion.from_content(message.content)
    node = node_of(context)
    host = node.host(query.organisation)
    try:
        receipt = delete_derived_state(query, host, node)
    except _OBJECTIONABLE as error:
        return _refusal(message, Refused.OBJECTED, str(error))
    return Message(queries.deleted(receipt), reply_to=message)


@app.query("records")
def erase_records(message: Message, context: Context) -> Message:
    """On the organisation's own request, answer which records it trains on; erase them when the query says so."""
    query = RecordsQuery.from_content(message.content)
    node = node_of(context)
    host = node.host(query.request.value.organisation)
    erased = node.erased_records(host, query.genesis)
    try:
        check_request(query, node.member(host, query.genesis), host.key)
        held = Counter(record.digest for record in erased.left(host.data.train))
        if query.forget:
            erased.note({record: held.pop(record) for record in query.records if record in held})
        gone = erased.counts()
    except _OBJECTIONABLE as error:
        return _refusal(message, Refused.OBJECTED, str(error))
    known = (tuple(record for record in query.records if record in found) for found in (held, gone))
    return Message(RecordsAnswer(*known).to_content(), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train a lane's state for one round on the organisation's own records, if what was sent with it holds."""
    task = Task.from_content(message.content)
    node = node_of(context)
    host = node.host(task.organisation)
    try:
        model, fresh = _equipped(task, node, host)
        check_state(task, fresh)
        witness = node.oversight.check_record(task)
        standing = confirm(witness, task)
    except _OBJECTIONABLE as error:
        return _refusal(message, Refused.OBJECTED, str(error))
    if node.oversight.abstains(standing):
        return _refusal(message, Refused.ABSTAINED, str(standing))
    records = node.records(host, task.genesis, task.lane)
    stage = task.genesis.training.stage(task.round, _steps(task.genesis, model, records))
    try:
        bid, coming = _bids(task, node, stage.steps)
    except (FormatError, UsageError) as error:
        return _refusal(message, Refused.ABSTAINED, f"its agent cannot be asked: {error}")
    if bid == ABSTAIN:
        return _refusal(message, Refused.ABSTAINED, "its agent will not pay for this round")
    manifest, update = _local_round(task, records, model, fresh, bid, stage, {**metrics(standing), **coming})
    return Message(signed_reply(manifest, update, host, witness, task.genesis.chain), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Measure the base and what is served on the organisation's held-out records, in nats per answer token."""
    task = Task.from_content(message.content)
    node = node_of(context)
    host = node.host(task.organisation)
    try:
        model, fresh = _equipped(task, node, host)
        check_served(task, fresh)
        node.oversight.check_record(task)
    except _OBJECTIONABLE as error:
        return _refusal(message, Refused.OBJECTED, str(error))
    rule = RULES[task.genesis.rule]
    losses = {
        "base": _base_loss(model, task.genesis, host),
        "global": _loss(model, task.served.map(lambda state: rule.adapter(state, fresh)), task.genesis, host),
    }
    return Message(training.losses(losses), reply_to=message)


def _bids(task: Task, node: Node, steps: int) -> tuple[Bid, dict[str, float]]:
    """The bid that a round is trained by, `ABSTAIN` for none, and the metrics that carry the bid for the next.

    Where agents do not bid, the whole round and none.
    """
    genesis = task.genesis
    if genesis.policy(task.round) != "q-learning":
        return Bid(steps, genesis.rank), {}
    key = RoundKey(genesis.digest, task.lane, task.generation, task.round)
    session = node.agency.open_session(genesis, task.organisation, key, steps, codec.traffic(task.state))
    session.settle(task.paid)
    if (bid := session.begin()) == ABSTAIN:
        return ABSTAIN, {}
    coming = session.end()
    return bid, {"next-steps": float(coming.steps), "next-rank": float(coming.rank)}


def _equipped(task: Task, node: Node, host: Host) -> tuple[Model, AdapterState]:
    """The base model and the shared adapter, once they are those of the federation that the task names."""
    genesis = task.genesis
    model = load_base(genesis.base.name, genesis.base.quantisation, genesis.rank, genesis.alpha)
    fresh = shared_adapter(model, genesis.rank, genesis.seed)
    check_federation(task, node.member(host, genesis), model.digest, fresh)
    return model, fresh


def _local_round(
    task: Task,
    records: Sequence[Record],
    model: Model,
    fresh: AdapterState,
    bid: Bid,
    stage: Stage,
    standing: Mapping[str, float],
) -> tuple[UpdateManifest, AdapterState]:
    """One round of training at a `stage` of the schedule: the update and the manifest that describes it.

    A shard without records has nothing to learn: its update is zero.
    """
    genesis, rule = task.genesis, RULES[task.genesis.rule]
    part = genesis.lanes_of(task.organisation).index(task.lane)
    seed = seeds.local(genesis.seed, task.organisation, task.round, part)
    own = lora.fresh(lora.Layout.of(model.modules, genesis.rank), seed) if rule.trains_a else fresh
    start = rule.start(task.state, own)
    config = _train_config(genesis, stage, bid, rank_of(start))
    result = fit(model, records, start, config, seeds.as_int(seed)) if records else untrained(start)
    update = rule.update(task.state, result.adapter)
    manifest = UpdateManifest(
        genesis=genesis.digest,
        organisation=task.organisation,
        lane=task.lane,
        generation=task.generation,
        round=task.round,
        parent=task.parent.value.digest if task.parent else genesis.digest,
        update=update.digest,
        examples=len(records),
        tokens=result.tokens,
        bid=bid,
        nonce=Digest("0x" + secrets.token_hex(32)),
        metrics=_finite({"loss": result.loss, "seconds": result.seconds, **standing}),
    )
    return manifest, update


def _refusal(message: Message, reason: Refused, detail: str) -> Message:
    return Message(Refusal(reason, detail).to_content(), reply_to=message)


def _finite(metrics: dict[str, float]) -> dict[str, float]:
    """Without what cannot be signed: training that diverged has no loss, and its update is for admission to refuse."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def _steps(genesis: Genesis, model: Model, records: Sequence[Record]) -> int:
    """An organisation's steps in a whole round: as many as its records fill, at most the federation's."""
    training = genesis.training
    rows = training.batch_size * training.accumulation
    return steps_of(model, records, training.local_epochs, rows, training.max_length, training.local_steps)


def _train_config(genesis: Genesis, stage: Stage, bid: Bid, rank: int) -> TrainConfig:
    """The federation's settings for one round; a stacked adapter trains only its last columns."""
    training = genesis.training
    return TrainConfig(
        steps=bid.steps,
        batch_size=training.batch_size,
        accumulation=training.accumulation,
        max_length=training.max_length,
        learning_rate=training.learning_rate,
        first_step=stage.first_step,
        total_steps=stage.total_steps,
        gradient_checkpointing=training.gradient_checkpointing,
        train_a=RULES[genesis.rule].trains_a,
        first_column=rank - genesis.rank,
        columns=bid.rank,
    )


def _loss(model: Model, adapter: Composition | None, genesis: Genesis, host: Host) -> float:
    training = genesis.training
    return measure(model, adapter, host.data.dev, training.max_length, training.evaluate_limit or None).loss


def _base_loss(model: Model, genesis: Genesis, host: Host) -> float:
    """The base never changes, so its loss is measured once per process."""
    key = genesis.digest, host.organisation.address
    if key not in _BASE_LOSSES:
        _BASE_LOSSES[key] = _loss(model, None, genesis, host)
    return _BASE_LOSSES[key]
