"""A round of local training on a tiny random base: a pure function of what it is given, described by its manifest."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from client_app import local_round
from client_app.local_round import RoundPlan, train_round, whole_round
from client_app.privacy import PrivateRound
from core.adapter import AdapterState
from core.aggregation import RULES
from core.composition import Composition
from core.genesis import Genesis, Stage
from core.messages.training import Task
from core.rounds import Salts
from core.update import Bid, UpdateManifest
from core.wire import Packed
from llm.model import Model, ModelSpec, load
from llm.records import Message, Record
from llm.served import shared_adapter
from tests import federation as f
from tests.commands import make_base

RANK = 2
BID = Bid(2, RANK)
STAGE = Stage(2, 0, 4)
RECORDS = tuple(Record((Message("user", f"What is {i} and {i}?"),), f"It is {2 * i}.") for i in range(6))

Round = Callable[..., tuple[UpdateManifest, AdapterState]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(ModelSpec(str(make_base(tmp_path_factory.mktemp("base"))), "none", RANK, 4.0))


def genesis(rule: str = "frozen-a") -> Genesis:
    plain = f.genesis(rule=rule, rank=RANK)
    training = replace(plain.training, rounds=2, local_steps=2, batch_size=2, max_length=64, learning_rate=0.01)
    return replace(plain, training=training)


@pytest.fixture
def round_of(model: Model) -> Round:
    """Train medical's round from the beginning of its lane; `changes` are of the task."""

    def run(
        rule: str = "frozen-a",
        records: tuple[Record, ...] = RECORDS,
        bid: Bid = BID,
        stage: Stage = STAGE,
        metrics: dict[str, float] | None = None,
        private: PrivateRound | None = None,
        wire: str = "fp32",
        **changes: object,
    ) -> tuple[UpdateManifest, AdapterState]:
        fixed, fresh = replace(genesis(rule), wire=wire), shared_adapter(model, RANK, f.SEED)
        served = Composition.of(RULES[rule].initial(fresh))
        task = Task(fixed, f.address("medical"), 0, 0, 1, (), None, None, served)
        plan = RoundPlan(bid, stage, metrics or {}, private, partial(Packed.of, form=wire))
        manifest, sent = train_round(replace(task, **changes), records, model, fresh, plan)  # type: ignore[arg-type]
        assert (manifest.update, manifest.wire) == (sent.digest, sent.form) == (manifest.update, wire)
        return manifest, sent.state

    return run


def test_the_same_round_gives_the_same_update_under_another_nonce(round_of: Round) -> None:
    (one, first), (two, second) = round_of(), round_of()
    assert first == second
    assert one.nonce != two.nonce
    same = {"nonce": one.nonce, "metrics": one.metrics}
    assert replace(two, **same) == one


@pytest.mark.parametrize("rule", list(RULES))
def test_the_manifest_describes_the_update(round_of: Round, model: Model, rule: str) -> None:
    manifest, update = round_of(rule, metrics={"behind": 1.0})
    fixed = genesis(rule)
    assert (manifest.genesis, manifest.parent) == (fixed.digest, fixed.digest)
    assert (manifest.organisation, manifest.lane, manifest.generation, manifest.round) == (
        f.address("medical"),
        0,
        0,
        1,
    )
    assert (manifest.examples, manifest.bid) == (len(RECORDS), BID)
    assert manifest.tokens > 0
    assert manifest.metrics.keys() == {"loss", "seconds", "records", "behind"}
    initial, fresh = RULES[rule].initial(shared_adapter(model, RANK, f.SEED)), shared_adapter(model, RANK, f.SEED)
    assert {name: update[name].shape for name in update} == RULES[rule].shapes(initial, fresh)
    assert any(update[name].any() for name in update)


def test_a_later_round_names_the_record_that_it_was_trained_on(round_of: Round) -> None:
    parent = f.record(genesis()).sign(f.COORDINATOR, f.CHAIN)
    manifest, _ = round_of(round=2, parent=parent, salts=Salts.draw(parent.value))
    assert manifest.parent == parent.value.digest


@pytest.mark.parametrize("change", ["round", "records", "bid", "stage"])
def test_another_round_data_bid_or_stage_gives_another_update(round_of: Round, change: str) -> None:
    changes: dict[str, dict[str, object]] = {
        "round": {"round": 2},
        "records": {"records": RECORDS[1:]},
        "bid": {"bid": Bid(1, RANK)},
        "stage": {"stage": Stage(2, 2, 4)},
    }
    assert round_of(**changes[change])[1] != round_of()[1]


@pytest.mark.parametrize("wire", ["bf16", "int8", "nf4", "sparse"])
def test_the_update_is_what_travels_in_the_federations_form(round_of: Round, wire: str) -> None:
    (plain, exact), (manifest, update) = round_of(), round_of(wire=wire)
    assert manifest.update not in (plain.update, update.digest)
    assert update == Packed.of(exact, wire).state


def test_a_bid_of_a_smaller_rank_leaves_the_other_columns(round_of: Round) -> None:
    _, update = round_of(bid=Bid(2, 1))
    for name in update:
        assert update[name][:, 0].any()
        assert not update[name][:, 1:].any()


def test_a_shard_without_records_adds_nothing(round_of: Round) -> None:
    manifest, update = round_of(records=())
    assert not any(update[name].any() for name in update)
    assert (manifest.examples, manifest.tokens) == (0, 0)


def test_training_that_diverged_has_no_loss_to_sign(round_of: Round, monkeypatch: pytest.MonkeyPatch) -> None:
    train = local_round.train
    monkeypatch.setattr(local_round, "train", lambda *a, **k: replace(train(*a, **k), loss=math.nan))
    manifest, _ = round_of(metrics={"behind": math.inf, "trusting": 1.0})
    assert manifest.metrics.keys() == {"seconds", "records", "trusting"}
    assert manifest.sign(f.key("medical"), f.CHAIN)


def test_a_whole_round_has_the_steps_that_the_records_fill_at_most_the_federation_s(model: Model) -> None:
    fixed = genesis()

    def steps(**changes: float) -> int:
        changed = replace(fixed, training=replace(fixed.training, **changes))
        return whole_round(changed, f.address("medical"), model, RECORDS)

    assert steps(local_epochs=0.0) == 2
    assert steps(local_epochs=1.0, local_steps=100) < steps(local_epochs=3.0, local_steps=100) < 100
    assert steps(local_epochs=100.0, local_steps=7) == 7
