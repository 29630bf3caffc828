"""An organisation's account: every training is paid for once, and its noise is its own."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from client_app.local_round import RoundPlan, train_round, whole_round
from client_app.privacy import PrivacyAccount, PrivateRound, private_round
from core import keys
from core.adapter import AdapterState
from core.aggregation import RULES
from core.composition import Composition
from core.errors import IntegrityError, PrivacyError
from core.genesis import Genesis, Privacy, Stage
from core.messages.training import Task
from core.privacy import PrivacyPlan
from core.round_key import RoundKey
from core.update import Bid, UpdateManifest
from llm.model import Model, ModelSpec, load
from llm.records import Message, Record
from llm.served import shared_adapter
from tests import federation as f
from tests.commands import make_base

RANK = 2
BID, STAGE = Bid(2, RANK), Stage(2, 0, 4)
RECORDS = tuple(Record((Message("user", f"What is {i} and {i}?"),), f"It is {2 * i}.") for i in range(8))
MEDICAL = f.address("medical")


def private_genesis(reserve: int = 0) -> Genesis:
    plain = f.genesis(rank=RANK, privacy=Privacy(3.0, 1e-5, 1.0, reserve))
    training = replace(plain.training, rounds=2, local_steps=2, batch_size=25, max_length=64, learning_rate=0.01)
    return replace(plain, training=training)


GENESIS = private_genesis()


def key(round_: int = 1, generation: int = 0, lane: int = 0) -> RoundKey:
    return RoundKey(GENESIS.digest, lane, generation, round_)


@pytest.fixture
def account(tmp_path: Path) -> PrivacyAccount:
    plan = PrivacyPlan.of(GENESIS, MEDICAL)
    assert plan
    return PrivacyAccount(tmp_path / "account.jsonl", plan)


def test_every_round_spends_and_a_retry_does_not(account: PrivacyAccount) -> None:
    first = account.spend(key(1), f.other("a"), 2)
    assert account.spend(key(1), f.other("a"), 2) == first
    second = account.spend(key(2), f.other("b"), 2)
    assert 0 < first < second <= 3.0


def test_a_new_generation_spends_on_and_a_spent_budget_refuses(account: PrivacyAccount) -> None:
    for number in (1, 2):
        account.spend(key(number), f.other(f"{number}"), 2)
    with pytest.raises(PrivacyError, match="expected at most 0 steps more, got a round of 2"):
        account.spend(key(1, generation=1), f.other("again"), 2)
    # What was refused was not entered; what was paid for may be asked for again.
    assert account.spend(key(2), f.other("2"), 2) <= 3.0


def test_other_inputs_of_the_same_round_are_paid_for_again(account: PrivacyAccount) -> None:
    first = account.spend(key(1), f.other("a"), 1)
    assert account.spend(key(1), f.other("b"), 1) > first


def test_shards_hold_other_records_and_spend_apart(account: PrivacyAccount) -> None:
    first = account.spend(key(1, lane=0), f.other("a"), 2)
    assert account.spend(key(1, lane=1), f.other("b"), 2) == first


def test_an_account_that_lost_a_round_is_refused(account: PrivacyAccount, tmp_path: Path) -> None:
    account.spend(key(1), f.other("a"), 2)
    account.check_whole({key(1): 1})
    with pytest.raises(IntegrityError, match=f"expected 1 entries of {key(2)}"):
        account.check_whole({key(1): 1, key(2): 1})
    (tmp_path / "account.jsonl").unlink()
    with pytest.raises(IntegrityError, match="restore its newest copy"):
        account.check_whole({key(1): 1})


@pytest.mark.parametrize("odd", ["1", "[]", "{}", '{"inputs":"0x","key":{},"steps":1}'])
def test_an_entry_that_is_none_is_damage_and_said_in_words(account: PrivacyAccount, tmp_path: Path, odd: str) -> None:
    (tmp_path / "account.jsonl").write_text(f"{odd}\n")
    for use in (lambda: account.spend(key(1), f.other("a"), 2), lambda: account.check_whole({})):
        with pytest.raises(IntegrityError, match=r"line 1 of .* is damaged") as found:
            use()
        assert "__init__" not in str(found.value)


def test_an_account_that_lost_one_of_two_trainings_of_a_round_is_refused(account: PrivacyAccount) -> None:
    """A round may have been trained from two states, and is paid for twice."""
    account.spend(key(1), f.other("a"), 1)
    with pytest.raises(IntegrityError, match=r"expected 2 entries of .* got 1"):
        account.check_whole({key(1): 2})
    account.spend(key(1), f.other("b"), 1)
    account.check_whole({key(1): 2})


# --- rounds --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(ModelSpec(str(make_base(tmp_path_factory.mktemp("base"))), "none", RANK, 4.0))


def task(model: Model, genesis: Genesis = GENESIS, generation: int = 0) -> Task:
    served = Composition.of(RULES[genesis.rule].initial(shared_adapter(model, RANK, f.SEED)))
    return Task(genesis, MEDICAL, 0, generation, 1, (), None, None, served)


HERE = {"torch": "2", "model": "cpu: float32"}


def paid(
    asked: Task,
    path: Path,
    by: keys.Key | None = None,
    records: tuple[Record, ...] = RECORDS,
    where: Mapping[str, str] = HERE,
) -> PrivateRound:
    found = private_round(asked, BID, records, by or f.key("medical"), path / "account.jsonl", {}, lambda: where)
    assert found
    return found


def update_of(
    model: Model, asked: Task, private: PrivateRound, records: tuple[Record, ...] = RECORDS
) -> tuple[UpdateManifest, AdapterState]:
    plan = RoundPlan(BID, STAGE, {"behind": 1.0}, private)
    manifest, sent = train_round(asked, records, model, shared_adapter(model, RANK, f.SEED), plan)
    return manifest, sent.state


def test_a_manifest_tells_epsilon_and_nothing_else_of_the_records(model: Model, tmp_path: Path) -> None:
    private = paid(task(model), tmp_path)
    manifest, update = update_of(model, task(model), private)
    assert manifest.epsilon == private.epsilon > 0
    assert manifest.metrics == {"behind": 1.0}
    assert manifest.tokens == 0
    assert any(update[name].any() for name in update)


def test_a_retry_sends_the_same_update_and_another_generation_another(model: Model, tmp_path: Path) -> None:
    roomy = private_genesis(reserve=4)
    first, again, replayed = (
        update_of(model, asked, paid(asked, tmp_path))
        for asked in (task(model, roomy), task(model, roomy), task(model, roomy, generation=1))
    )
    assert first[1] == again[1]
    assert first[0].epsilon == again[0].epsilon < replayed[0].epsilon
    # From the same state, on the same records: only the noise can differ.
    assert replayed[1] != first[1]


def test_noise_is_drawn_anew_when_a_record_is_gone(model: Model, tmp_path: Path) -> None:
    """The same noise under two data sets that differ by a record would show the record by difference."""
    secrets = {paid(task(model), tmp_path / f"{left}", records=RECORDS[:left]).secret for left in (8, 7, 0)}
    assert len(secrets) == 3


def test_noise_is_drawn_anew_when_its_size_is_another(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two sizes of the same noise would show it by difference: an accountant finds another σ on another machine."""
    first = paid(task(model), tmp_path)
    monkeypatch.setattr(PrivacyPlan, "noise", first.plan.noise * 1.001)
    again = paid(task(model), tmp_path)
    assert again.secret != first.secret
    assert again.epsilon > first.epsilon


@pytest.mark.parametrize("changed", [{"torch": "3"}, {"model": "cuda:0: bfloat16"}])
def test_noise_is_drawn_anew_where_sums_round_otherwise(model: Model, tmp_path: Path, changed: dict[str, str]) -> None:
    """The difference of two roundings of the same sums would show past the same noise."""
    first, again = paid(task(model), tmp_path), paid(task(model), tmp_path, where=HERE | changed)
    assert again.secret != first.secret
    assert again.epsilon > first.epsilon


def test_nothing_that_is_told_or_divided_by_follows_the_number_of_records(model: Model, tmp_path: Path) -> None:
    """One record more or less: that is what (ε, δ) is of. The count is the registered one."""
    asked = task(model)
    told = set()
    for left in (8, 7, 0):
        private = paid(asked, tmp_path / f"{left}", records=RECORDS[:left])
        manifest, _ = update_of(model, asked, private, RECORDS[:left])
        told.add((manifest.examples, manifest.tokens, manifest.bid, manifest.epsilon))
        told.add((100, 0, BID, private.epsilon))
        assert private.mechanism.expected == 25.0
        assert private.mechanism.rate == 0.25
    assert len(told) == 1


def test_the_genesis_alone_does_not_give_the_noise(model: Model, tmp_path: Path) -> None:
    own, other = (paid(task(model), tmp_path / name, f.key(name)) for name in ("medical", "coding"))
    assert own.secret != other.secret
    updates = [update_of(model, task(model), private)[1] for private in (own, other)]
    assert updates[0] != updates[1]
    # Without the key there is neither; the secret shows in no text of the round.
    assert repr(own).count(own.secret.hex()) == 0
    assert str(own.secret) not in repr(own)


def test_an_empty_shard_sends_noise_like_any_other(model: Model, tmp_path: Path) -> None:
    private = paid(task(model), tmp_path, records=())
    _, update = update_of(model, task(model), private, ())
    assert any(update[name].any() for name in update)


def test_where_no_loss_of_privacy_is_counted_nothing_is_paid(model: Model, tmp_path: Path) -> None:
    asked = replace(task(model), genesis=replace(GENESIS, privacy=None))
    assert private_round(asked, BID, RECORDS, f.key("medical"), tmp_path / "account.jsonl", {}, lambda: HERE) is None
    assert not (tmp_path / "account.jsonl").exists()


def test_steps_of_a_private_round_do_not_tell_how_long_the_records_are(model: Model) -> None:
    long = tuple(replace(record, answer=record.answer * 10) for record in RECORDS)
    assert whole_round(GENESIS, MEDICAL, model, RECORDS) == whole_round(GENESIS, MEDICAL, model, long)
