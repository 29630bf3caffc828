"""A round of local training: a pure function of (base, parent state, data, seed, round, bid).

Nothing is kept between rounds, and the base model is never changed: a round that is sent again gives the same update.
"""

import secrets
from collections.abc import Mapping, Sequence

from core import lora, seeds
from core.adapter import AdapterState
from core.aggregation import RULES, rank_of
from core.canonical import Digest
from core.genesis import Genesis, Stage
from core.messages.training import Task
from core.update import METRICS, Bid, UpdateManifest
from llm.model import Model
from llm.records import Record
from llm.train import TrainConfig, steps_of, train, untrained


def whole_round(genesis: Genesis, model: Model, records: Sequence[Record]) -> int:
    """An organisation's steps in a whole round: as many as its records fill, at most the federation's."""
    settings = genesis.training
    rows = settings.batch_size * settings.accumulation
    return steps_of(model, records, settings.local_epochs, rows, settings.max_length, settings.local_steps)


def train_round(
    task: Task,
    records: Sequence[Record],
    model: Model,
    fresh: AdapterState,
    bid: Bid,
    stage: Stage,
    metrics: Mapping[str, float],
) -> tuple[UpdateManifest, AdapterState]:
    """One round at a `stage` of the schedule: the update, and the manifest that describes it with these `metrics`.

    `fresh` is the adapter before any training.
    """
    genesis, rule = task.genesis, RULES[task.genesis.rule]
    shard = genesis.lanes_of(task.organisation).index(task.lane)
    seed = seeds.local(genesis.seed, task.organisation, task.round, shard)
    own = lora.fresh(lora.Layout.of(model.modules, genesis.rank), seed) if rule.trains_a else fresh
    start = rule.start(task.state, own)
    # A shard without records has nothing to learn: its update is zero.
    config = _train_config(genesis, bid, stage, first_column=rank_of(start) - genesis.rank)
    result = train(model, records, start, config, seeds.as_int(seed)) if records else untrained(start)
    update = rule.update(task.state, result.adapter)
    measured = {"loss": result.loss, "seconds": result.seconds, **metrics}
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
        # Training that diverged has no loss that can be signed; its update is for admission to refuse.
        metrics={name: value for name, value in measured.items() if METRICS[name][0] <= value <= METRICS[name][1]},
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
