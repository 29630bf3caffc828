"""The ClientApp on a small random model: who is hosted, what is trained, what is signed."""

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

import client_app.learning
import client_app.local_round
import core.adapter
import core.wire
from client_app import learning, oversight
from client_app.app import app
from client_app.approvals import Approvals
from client_app.hosting import Node, node_of
from client_app.privacy import PrivacyAccount
from console.backends.inline import InlineGrid
from core import keys, lora, seeds
from core.adapter import AdapterState
from core.aggregation import RULES
from core.canonical import Digest, digest
from core.composition import Composition
from core.config import RunConfig
from core.errors import ConfigError, DataError, UsageError
from core.genesis import Base, Genesis, Privacy
from core.ledger import MemoryLedger
from core.messages import queries, training
from core.messages.queries import (
    BIND,
    CONSENT,
    OFFER,
    REVEAL,
    Bind,
    Bound,
    ConsentQuery,
    OfferQuery,
    RevealQuery,
)
from core.messages.refusal import Cause, Refusal, Refused
from core.messages.training import EVALUATE, TRAIN, Reply, Task
from core.privacy import PrivacyPlan
from core.round_key import RoundKey
from core.storage import jsonl
from core.storage.state_folder import State
from core.update import verified_registration
from llm.model import ModelSpec, load
from llm.train import TrainResult
from tests import federation as f
from tests.commands import make_base, make_data

RANK, ALPHA = 2, 2.0


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    base = make_base(tmp_path_factory.mktemp("base"))
    data = make_data(tmp_path_factory.mktemp("data") / "organisations")
    state = tmp_path_factory.mktemp("state")
    return {
        "base": str(base), "data": str(data), "state": str(state), "quantisation": "none", "rank": RANK, "alpha": ALPHA
    }  # fmt: skip


def context(run_config: Mapping[str, Any], **node_config: Any) -> Context:
    return Context(1, 1, node_config, RecordDict(), RunConfig().to_flat() | run_config)


def simulated(run_config: Mapping[str, Any], index: int = 0, nodes: int = 1) -> Context:
    return context(run_config, **{"partition-id": index, "num-partitions": nodes})


def names(node: Node) -> list[str]:
    return [host.data.name for host in node.hosts.values()]


# --- hosting -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nodes", [1, 2, 3, 5])
def test_in_a_simulation_every_organisation_is_hosted_once(places: dict[str, Any], nodes: int) -> None:
    hosted = [node_of(simulated(places, index, nodes)) for index in range(nodes)]
    assert sorted(name for node in hosted for name in names(node)) == ["coding", "financial", "medical"]
    assert {node.known for node in hosted} == {3}


def test_keys_of_a_simulation_are_derived_and_say_so(places: dict[str, Any]) -> None:
    for host in node_of(simulated(places)).hosts.values():
        assert host.key == keys.derive(7, host.data.name)
        assert host.organisation.derived
        assert host.organisation.examples == len(host.data.train)


def test_a_deployed_node_hosts_one_organisation_with_its_own_key(places: dict[str, Any], tmp_path: Path) -> None:
    key = keys.create(tmp_path / "own.key")
    place = {"organisation": "medical", "data": places["data"], "key-file": str(tmp_path / "own.key")}
    node = node_of(context(places | {"data": ""}, **place))
    assert list(node.hosts) == [key.address]
    assert names(node) == ["medical"]
    assert not node.host(key.address).organisation.derived
    assert node.known == 0


@pytest.mark.parametrize("missing", ["organisation", "data", "key-file"])
def test_a_deployed_node_needs_all_of_its_settings(places: dict[str, Any], tmp_path: Path, missing: str) -> None:
    keys.create(tmp_path / "own.key")
    place = {"organisation": "medical", "data": places["data"], "key-file": str(tmp_path / "own.key")} | {missing: ""}
    with pytest.raises(ConfigError, match=f"node-config has no {missing}"):
        node_of(context(places, **place))


def test_a_deployed_node_without_its_organisations_data_says_so(places: dict[str, Any], tmp_path: Path) -> None:
    keys.create(tmp_path / "own.key")
    place = {"organisation": "absent", "data": places["data"], "key-file": str(tmp_path / "own.key")}
    with pytest.raises(UsageError, match="no data of organisation 'absent'"):
        node_of(context(places, **place))


def test_a_node_speaks_for_nobody_else(places: dict[str, Any]) -> None:
    node = node_of(simulated(places, 0, 3))
    with pytest.raises(UsageError, match=f"hosted here .* got {f.COORDINATOR.address}"):
        node.host(f.COORDINATOR.address)


# --- messages ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def genesis(places: dict[str, Any]) -> Genesis:
    model = load(ModelSpec(places["base"], "none", RANK, ALPHA))
    members = sorted(
        (h.organisation for h in node_of(simulated(places)).hosts.values()), key=lambda o: int(o.address, 16)
    )
    fresh = lora.fresh(lora.Layout.of(model.modules, RANK), seeds.shared(7))
    config = RunConfig(rounds=2, local_steps=2, batch_size=1, max_length=48, evaluate_limit=2)
    return f.genesis(
        base=Base(places["base"], model.digest, "none"),
        rank=RANK,
        alpha=ALPHA,
        shared_a=lora.factor(fresh, "A").digest,
        organisations=tuple(members),
        lanes=(tuple(member.address for member in members),),
        training=config.training,
    )


class OwnLedger(MemoryLedger):
    """The ledger of the federation, as every organisation here reads it."""

    domain = f.CHAIN


@pytest.fixture(autouse=True)
def ledger(genesis: Genesis, monkeypatch: pytest.MonkeyPatch) -> OwnLedger:
    ledger = OwnLedger()
    ledger.open_run(genesis.digest, [member.address for member in genesis.organisations])
    monkeypatch.setattr(oversight, "_ledger", lambda chain, state, contract: ledger)
    return ledger


def task(genesis: Genesis, name: str = "medical", **changes: Any) -> Task:
    model = load(ModelSpec(genesis.base.name, "none", RANK, ALPHA))
    initial = RULES[genesis.rule].initial(lora.fresh(lora.Layout.of(model.modules, RANK), seeds.shared(7)))
    values = {
        "lane": 0,
        "generation": 0,
        "round": 1,
        "openings": (),
        "parent": None,
        "salts": None,
        "served": Composition.of(initial),
    } | changes
    return Task(genesis=genesis, organisation=keys.derive(7, name).address, **values)


def send(places: dict[str, Any], kind: str, content: RecordDict) -> Message:
    grid = InlineGrid(app, 1, RunConfig().to_flat() | places)
    (reply,) = grid.send_and_receive([Message(content, 1, kind, group_id="1")])
    return reply


def trained(places: dict[str, Any], asked: Task) -> Reply:
    reply = send(places, TRAIN, asked.to_content())
    assert not reply.has_error(), reply.error.reason
    return Reply.from_content(reply.content)


def test_everyone_hosted_answers_the_challenge_with_a_signature(places: dict[str, Any]) -> None:
    challenge = f.other("challenge")
    reply = send(places, BIND, Bind(f.asked(challenge), f.CHAIN).to_content())
    bound = Bound.from_content(reply.content)
    members = [verified_registration(signed, f.CHAIN, f.asked(challenge)) for signed in bound.registrations]
    assert sorted(member.name for member in members) == ["coding", "financial", "medical"]


def test_an_update_is_signed_by_its_organisation_and_is_what_was_signed(
    places: dict[str, Any], genesis: Genesis
) -> None:
    reply = trained(places, task(genesis))
    manifest = reply.signed.verified(genesis)
    update = AdapterState.from_bytes(reply.update)
    assert manifest.update == update.digest
    assert manifest.organisation == keys.derive(7, "medical").address
    assert manifest.genesis == manifest.parent == genesis.digest
    assert update.shapes == task(genesis).state.shapes
    assert any(array.any() for array in update.arrays.values())
    assert manifest.metrics["loss"] > 0
    assert manifest.tokens > 0


def test_training_is_a_pure_function_of_what_was_asked(places: dict[str, Any], genesis: Genesis) -> None:
    first, second = (trained(places, task(genesis)).signed.value for _ in range(2))
    assert first.update == second.update
    assert first.nonce != second.nonce


def test_an_organisation_that_has_spent_its_budget_abstains(
    places: dict[str, Any], genesis: Genesis, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = replace(genesis, privacy=Privacy(3.0, 1e-5, 1.0), run="private")
    medical, own = task(private), OwnLedger()
    own.open_run(private.digest, [member.address for member in private.organisations])
    monkeypatch.setattr(oversight, "_ledger", lambda chain, state, contract: own)
    paid = trained(places, medical).signed.value
    assert 0 < paid.epsilon < 3.0
    assert not paid.metrics.keys() & {"loss", "seconds"}
    state = State(Path(places["state"]))
    assert state.privacy(private.digest, medical.organisation).stat().st_mode & 0o077 == 0

    coding = task(private, "coding")
    plan = PrivacyPlan.of(private, coding.organisation)
    assert plan
    account = PrivacyAccount(state.privacy(private.digest, coding.organisation), plan)
    account.spend(RoundKey(private.digest, 0, 1, 1), f.other("a replay"), plan.most)
    refusal = Refusal.from_content(send(places, TRAIN, coding.to_content()).content)
    assert refusal
    assert (refusal.reason, refusal.cause) == (Refused.ABSTAINED, Cause.PRIVACY)
    assert "expected at most 0 steps more" in refusal.detail


def test_training_that_diverged_is_left_to_admission(
    places: dict[str, Any], genesis: Genesis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverged(_model: Any, _records: Any, start: AdapterState, *_: Any) -> TrainResult:
        nowhere = {name: np.full_like(array, np.nan) for name, array in start.arrays.items()}
        return TrainResult(AdapterState(nowhere), loss=math.nan, tokens=1, examples=1, seconds=1.0)

    monkeypatch.setattr(client_app.local_round, "train", diverged)
    reply = trained(places, task(genesis))
    assert reply.signed.verified(genesis).metrics == {"seconds": 1.0, "records": 1}
    assert all(np.isnan(array).all() for array in AdapterState.from_bytes(reply.update).arrays.values())


def test_organisations_learn_different_things(places: dict[str, Any], genesis: Genesis) -> None:
    names_ = ("medical", "coding", "financial")
    assert len({trained(places, task(genesis, name)).signed.value.update for name in names_}) == 3


def test_an_evaluation_measures_base_and_global(places: dict[str, Any], genesis: Genesis) -> None:
    reply = send(places, EVALUATE, task(genesis).to_content())
    losses = training.losses_of(reply.content)
    assert losses["base"] == losses["global"] > 0


def test_a_task_that_asks_to_measure_gets_the_losses_of_an_evaluation_beside_the_same_update(
    places: dict[str, Any], genesis: Genesis
) -> None:
    alone = send(places, EVALUATE, task(genesis).to_content())
    without, both = (send(places, TRAIN, task(genesis, measure=asked).to_content()) for asked in (False, True))
    assert training.losses_of(both.content) == training.losses_of(alone.content)
    assert "losses" not in without.content
    updates = [Reply.from_content(reply.content).signed.value.update for reply in (without, both)]
    assert len(set(updates)) == 1


def test_an_organisation_without_held_out_records_trains_all_the_same(
    places: dict[str, Any], genesis: Genesis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise DataError("expected at least one record to evaluate, got none")

    monkeypatch.setattr(learning, "measure", none)
    monkeypatch.setattr(learning, "_BASE_LOSSES", {})
    reply = send(places, TRAIN, task(genesis, measure=True).to_content())
    assert Reply.from_content(reply.content).signed.verified(genesis).examples
    assert "losses" not in reply.content


def test_a_task_for_an_organisation_that_is_elsewhere_is_an_error(places: dict[str, Any], genesis: Genesis) -> None:
    reply = send(places | {"seed": 8}, TRAIN, task(genesis).to_content())
    refusal = Refusal.from_content(reply.content)
    assert refusal
    assert (refusal.reason, refusal.cause) == (Refused.FAILED, Cause.USAGE)
    assert "expected an organisation hosted here" in refusal.detail


def test_what_was_not_signed_for_is_not_trained_on(places: dict[str, Any], genesis: Genesis) -> None:
    asked = task(genesis)
    other = AdapterState({name: array + 1 for name, array in asked.state.arrays.items()})
    reply = send(places, TRAIN, task(genesis, served=Composition.of(other)).to_content())
    refusal = Refusal.from_content(reply.content)
    assert refusal
    assert refusal.reason == Refused.OBJECTED
    assert "state: expected 0x" in refusal.detail


def test_nothing_is_bid_in_a_federation_that_was_not_agreed_to(
    places: dict[str, Any], genesis: Genesis, tmp_path: Path
) -> None:
    key = keys.create(tmp_path / "own.key")
    own = {"organisation": "medical", "data": places["data"], "key-file": str(tmp_path / "own.key")}
    asked = Message(OfferQuery(genesis, key.address, 0, 0, 1, 1.0, {}).to_content(), 1, OFFER)
    reply = app(asked, context(places, **own, state=str(tmp_path / "state")))
    refusal = Refusal.from_content(reply.content)
    assert refusal
    assert refusal.reason == Refused.OBJECTED
    assert not (tmp_path / "state").exists()


def test_a_node_founds_as_what_it_is_and_as_its_settings_want(places: dict[str, Any], tmp_path: Path) -> None:
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    key = keys.create(tmp_path / "own.key")
    own = {"organisation": "medical", "data": places["data"], "key-file": str(tmp_path / "own.key")}

    def ask(kind: str, content: RecordDict, **pins: Any) -> RecordDict:
        node = context(places, **own, **pins, state=str(tmp_path / "state"))
        return app(Message(content, 1, kind), node).content

    asked = Bind(f.asked(f.other("challenge")), f.CHAIN)
    (registration,) = Bound.from_content(ask(BIND, asked.to_content())).registrations
    nonce = queries.nonce_of(ask(REVEAL, RevealQuery(key.address, (registration,), f.CHAIN).to_content()))
    member = verified_registration(registration, f.CHAIN, asked.asked)
    lanes, seed = ((key.address,),), seeds.from_nonces((nonce,))
    genesis = replace(f.genesis(), organisations=(member,), lanes=lanes, nonces=(nonce,), seed=seed)
    grown = replace(genesis, organisations=(replace(member, examples=member.examples + 1),))
    for other, pins in ((grown, {}), (genesis, {"pin-members": f.COORDINATOR.address})):
        refusal = Refusal.from_content(ask(CONSENT, ConsentQuery(key.address, other).to_content(), **pins))
        assert refusal
        assert refusal.reason == Refused.OBJECTED
    consent = queries.consent_of(ask(CONSENT, ConsentQuery(key.address, genesis).to_content()))
    assert consent.verified(genesis).organisation == key.address


def test_a_deployed_node_says_chain_and_contract_of_its_own_when_it_is_bound_on_others(
    places: dict[str, Any], tmp_path: Path
) -> None:
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    keys.create(tmp_path / "own.key")
    own = {"organisation": "medical", "data": places["data"], "key-file": str(tmp_path / "own.key")}
    own |= {"state": str(tmp_path / "state"), "chain-url": "http://rpc.example"}
    elsewhere = replace(f.CHAIN, chain_id=1)
    asked = Message(Bind(f.asked(f.other("challenge")), elsewhere).to_content(), 1, BIND)
    refusal = Refusal.from_content(app(asked, context(places, **own)).content)
    assert refusal
    assert refusal.detail == f"the contract on the organisation's chain: expected {elsewhere}, got {f.CHAIN}"
    assert refusal.lasting


@dataclass
class Deployed:
    """A node with a key of its own and a site policy, alone in a federation that it has agreed to."""

    places: dict[str, Any]
    folder: Path
    genesis: Genesis

    @classmethod
    def agree(cls, places: dict[str, Any], folder: Path, genesis: Genesis) -> "Deployed":
        TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
        key = keys.create(folder / "own.key")
        made = cls(places, folder, genesis)
        made.allow("")
        asked = Bind(f.asked(f.other("challenge")), f.CHAIN)
        (registration,) = Bound.from_content(made.ask(BIND, asked.to_content())).registrations
        nonce = queries.nonce_of(made.ask(REVEAL, RevealQuery(key.address, (registration,), f.CHAIN).to_content()))
        member = verified_registration(registration, f.CHAIN, asked.asked)
        seed = seeds.from_nonces((nonce,))
        model = load(ModelSpec(genesis.base.name, "none", RANK, ALPHA))
        shared = lora.factor(lora.fresh(lora.Layout.of(model.modules, RANK), seeds.shared(seed)), "A").digest
        members: dict[str, Any] = {"organisations": (member,), "lanes": ((key.address,),)}
        made.genesis = replace(genesis, **members, nonces=(nonce,), seed=seed, shared_a=shared)
        made.ask(CONSENT, ConsentQuery(key.address, made.genesis).to_content())
        return made

    def allow(self, policy: str) -> None:
        (self.folder / "policy.toml").write_text(policy, encoding="utf-8")

    def ask(self, kind: str, content: RecordDict) -> RecordDict:
        own = {"organisation": "medical", "data": self.places["data"], "base": self.places["base"]}
        files = {"key-file": "own.key", "policy": "policy.toml", "state": "state"}
        own |= {name: str(self.folder / file) for name, file in files.items()}
        return app(Message(content, 1, kind), context(self.places, **own)).content

    def train(self) -> RecordDict:
        (member,) = self.genesis.organisations
        model = load(ModelSpec(self.genesis.base.name, "none", RANK, ALPHA))
        fresh = lora.fresh(lora.Layout.of(model.modules, RANK), seeds.shared(self.genesis.seed))
        state = Composition.of(RULES[self.genesis.rule].initial(fresh))
        task = Task(self.genesis, member.address, 0, 0, 1, (), None, None, state)
        return self.ask(TRAIN, task.to_content())

    @property
    def state(self) -> State:
        return State(self.folder / "state")

    @property
    def approvals(self) -> Approvals:
        return Approvals(self.state.approvals(self.genesis.organisations[0].address))


def refusal_of(content: RecordDict) -> Refusal:
    refusal = Refusal.from_content(content)
    assert refusal
    return refusal


def test_an_update_that_is_held_leaves_once_it_is_let_go_and_nothing_is_trained_anew(
    places: dict[str, Any], genesis: Genesis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Deployed.agree(places, tmp_path, genesis)
    node.allow('approve = "each"')
    assert refusal_of(node.train()).cause == Cause.HELD
    monkeypatch.setattr(client_app.learning, "train_round", lambda *_: pytest.fail("it was trained already"))
    refusal = refusal_of(node.train())
    assert (refusal.reason, refusal.cause, refusal.lasting) == (Refused.ABSTAINED, Cause.HELD, False)
    assert refusal.detail == "held for approval by a person of its organisation"
    assert not [entry for entry in jsonl.read(node.state.sent) if entry["what"] == TRAIN]
    (held,) = node.approvals.waiting()
    node.approvals.decide(held.digest, released=True)
    reply = Reply.from_content(node.train())
    assert reply.signed.verified(node.genesis) == held
    assert AdapterState.from_bytes(reply.update).digest == held.update


def test_what_left_the_site_is_logged_at_home(places: dict[str, Any], genesis: Genesis, tmp_path: Path) -> None:
    node = Deployed.agree(places, tmp_path, genesis)
    reply = Reply.from_content(node.train())
    log = jsonl.read(node.state.sent)
    assert [entry["what"] for entry in log] == [BIND, REVEAL, CONSENT, TRAIN]
    assert {entry["to"] for entry in log} == {f.COORDINATOR.address}
    assert {entry["run"] for entry in log} == {f.RUN}
    manifest, entry = reply.signed.value, log[-1]
    assert (entry["digest"], entry["round"], entry["records"]) == (manifest.update, 1, manifest.examples)
    assert entry["bytes"] > len(reply.update)
    assert all(entry["bytes"] > 50 and entry["digest"].startswith("0x") for entry in log)


def test_a_manifest_tells_how_many_records_its_training_used(places: dict[str, Any], genesis: Genesis) -> None:
    manifest = trained(places, task(genesis)).signed.value
    # Two steps of one row each, in which few of the records find room.
    assert 0 < manifest.metrics["records"] < manifest.examples


@pytest.mark.parametrize(
    ("policy", "reason", "detail"),
    [
        ("most-steps = 1", Refused.OBJECTED, "most-steps: expected at most 1, as this site's policy allows, got 2"),
        ('data-sets = ["coding"]', Refused.OBJECTED, "data-sets: expected one of those in its list"),
        ('hours = ["{closed}"]', Refused.ABSTAINED, "hours: expected"),
        ('robust = "clip"', Refused.FAILED, ""),
    ],
)
def test_a_task_beyond_the_site_s_policy_is_refused_before_anything_is_trained(
    places: dict[str, Any],
    genesis: Genesis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    policy: str,
    reason: Refused,
    detail: str,
) -> None:
    node = Deployed.agree(places, tmp_path, genesis)
    monkeypatch.setattr(client_app.learning, "train_round", lambda *_: pytest.fail("nothing is to be trained"))
    hour = (time.localtime().tm_hour + 2) % 24
    node.allow(policy.replace("{closed}", f"{hour:02}:00-{hour:02}:30"))
    refusal = refusal_of(node.train())
    assert refusal.reason == reason
    assert refusal.detail.startswith(detail)
    assert refusal.cause == (Cause.POLICY if detail else Cause.SETTINGS)
    assert str(tmp_path) not in refusal.detail


def test_a_node_does_not_agree_to_a_genesis_beyond_the_site_s_policy_and_says_why(
    places: dict[str, Any], genesis: Genesis, tmp_path: Path
) -> None:
    node = Deployed.agree(places, tmp_path, genesis)
    node.allow("most-rounds = 1")
    query = ConsentQuery(node.genesis.organisations[0].address, node.genesis)
    refusal = refusal_of(node.ask(CONSENT, query.to_content()))
    assert (refusal.reason, refusal.cause) == (Refused.OBJECTED, Cause.POLICY)
    assert refusal.detail == "most-rounds: expected at most 1, as this site's policy allows, got 2"
    node.allow('data-sets = ["financial"]')
    asked = Bind(f.asked(f.other("challenge")), f.CHAIN)
    assert refusal_of(node.ask(BIND, asked.to_content())).cause == Cause.POLICY


def test_a_message_is_handled_once(places: dict[str, Any], genesis: Genesis, monkeypatch: pytest.MonkeyPatch) -> None:
    """One parse of the task, one hash of the update, one replay of the witness's memory."""
    parse, replay = Task.from_content, jsonl.read_as
    parsed: list[RecordDict] = []
    hashed: list[bytes] = []
    replayed: list[Path] = []

    def counted_digest(kind: str, *parts: Any) -> Digest:
        hashed.append(b"".join(parts))
        return digest(kind, hashed[-1])

    monkeypatch.setattr(Task, "from_content", lambda content, kept: [parsed.append(content), parse(content, kept)][1])
    for module in (core.adapter, core.wire):
        monkeypatch.setattr(module, "digest", counted_digest)
    monkeypatch.setattr(jsonl, "read_as", lambda path, take: [replayed.append(path), replay(path, take)][1])
    reply = trained(places, task(genesis))
    assert (len(parsed), hashed.count(bytes(reply.update)), len(replayed)) == (1, 1, 1)
    assert jsonl.read(replayed[0])[-1] == {
        "sent": asdict(RoundKey(genesis.digest, 0, 0, 1)),
        "manifest": reply.signed.value.digest,
        "update": reply.signed.value.update,
    }
