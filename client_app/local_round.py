"""A round of local training: a pure function of (base, parent state, data, seed, round, bid).

Nothing is kept between rounds, and the base model is never changed: a round that is sent again gives the same update.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from client_app.privacy import PrivateRound
from core import lora, seeds
from core.adapter import AdapterState
from core.aggregation import RULES, rank_of
from core.canonical import Address, Digest
from core.genesis import Genesis, Stage
from core.messages.training import Task
from core.privacy import PrivacyPlan
from core.update import METRICS, Bid, UpdateManifest
from core.wire import Packed
from llm.model import Model
from llm.private import train_privately
from llm.records import Record
from llm.train import TrainConfig, steps_of, train, untrained


def whole_round(genesis: Genesis, organisation: Address, model: Model, records: Sequence[Record]) -> int:
    """An organisation's steps in a whole round: as many as its records fill, at most the federation's."""
    # How much text the records are is theirs to keep, where privacy is counted.
    if plan := PrivacyPlan.of(genesis, organisation):
        return plan.steps
    settings = genesis.training
    rows = settings.batch_size * settings.accumulation
    return steps_of(model, records, settings.local_epochs, rows, settings.max_length, settings.local_steps)


@dataclass(frozen=True)
class RoundPlan:
    """How a round is trained, by its bid, at a stage of the schedule; `metrics` are for its manifest.

    A `private` round tells ε in place of its loss, tokens and time. `pack` gives an update its form to travel in.
    """

    bid: Bid
    stage: Stage
    metrics: Mapping[str, float] = field(default_factory=dict)
    private: PrivateRound | None = None
    pack: Callable[[AdapterState], Packed] = lambda update: Packed.of(update, "fp32")


def train_round(
    task: Task, records: Sequence[Record], model: Model, fresh: AdapterState, plan: RoundPlan
) -> tuple[UpdateManifest, Packed]:
    """One round: the update as it travels, and its manifest. `fresh` is the adapter before any training."""
    bid, private = plan.bid, plan.private
    genesis, rule = task.genesis, RULES[task.genesis.rule]
    shard = genesis.lanes_of(task.organisation).index(task.lane)
    seed = seeds.local(genesis.seed, task.organisation, task.round, shard)
    own = lora.fresh(lora.Layout.of(model.modules, genesis.rank), seed) if rule.trains_a else fresh
    start = rule.start(task.state, own)
    config = _train_config(genesis, bid, plan.stage, first_column=rank_of(start) - genesis.rank)
    if private:
        result = train_privately(model, records, start, config, private.mechanism, seeds.as_int(seed))
    else:
        # A shard without records has nothing to learn: its update is zero.
        result = train(model, records, start, config, seeds.as_int(seed)) if records else untrained(start)
    update = plan.pack(rule.update(task.state, result.adapter))
    # Records are drawn without replacement, epoch by epoch: what was processed is each once, until all were.
    used = min(result.examples, len(records))
    told = {} if private else {"loss": result.loss, "seconds": result.seconds, "records": used}
    measured = told | dict(plan.metrics)
    manifest = UpdateManifest(
        genesis=genesis.digest,
        organisation=task.organisation,
        lane=task.lane,
        generation=task.generation,
        round=task.round,
        parent=task.parent.value.digest if task.parent else genesis.digest,
        update=update.digest,
        # How many there are by now would tell of one that came or went.
        examples=genesis.examples[task.organisation] if private else len(records),
        tokens=0 if private else result.tokens,
        bid=bid,
        nonce=Digest("0x" + secrets.token_hex(32)),
        # Training that diverged has no loss that can be signed; its update is for admission to refuse.
        metrics={name: value for name, value in measured.items() if METRICS[name][0] <= value <= METRICS[name][1]},
        wire=update.form,
        epsilon=private.epsilon if private else 0.0,
    )
    return manifest, update


def _train_config(genesis: Genesis, bid: Bid, stage: Stage, first_column: int) -> TrainConfig:
    settings = genesis.training
    return TrainConfig(
        steps=bid.steps,
        batch_size=settings.batch_size,
        accumulation=settings.accumulation,
        max_length=settings.max_length,
        learning_rate=settings.learning_rate,
        first_step=stage.first_step,
        total_steps=stage.total_steps,
        gradient_checkpointing=settings.gradient_checkpointing,
        dropout=settings.dropout,
        train_a=RULES[genesis.rule].trains_a,
        first_column=first_column,  # a stack trains its last columns alone
        columns=bid.rank,
    )
