"""Whole federations in one process: the real ServerApp and ClientApp, a small random model, a ledger in memory."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord

from client_app.app import app as client
from console.backends.inline import InlineGrid
from core import keys
from core.adapter import AdapterState
from core.canonical import Digest, digest, from_json, to_json
from core.config import RunConfig
from core.errors import ConfigError, FoedusError, RunError, RunLockedError, UsageError
from core.messages import codec, training
from core.messages.training import EVALUATE, TRAIN, Reply, Task
from core.rounds import RoundRecord
from core.storage.lock import locked
from core.storage.run_folder import RunFolder
from core.update import UpdateManifest
from server_app.app import founders_of
from server_app.binding import Bindings
from tests.server_app.worlds import World

Tamper = Callable[[UpdateManifest, AdapterState], tuple[UpdateManifest, AdapterState]]


def aggregates(run: RunFolder) -> list[Digest]:
    return [signed.value.aggregate for signed in run.records()]


def updates(run: RunFolder) -> list[Digest]:
    return [a.signed.value.update for signed in run.records() for a in signed.value.admitted]


def test_a_federation_learns_and_two_runs_with_one_seed_are_equal(world: World) -> None:
    first = world.run("first", **{"learning-rate": 0.05, "local-steps": 6})
    second = world.run("second", nodes=3, **{"learning-rate": 0.05, "local-steps": 6})
    assert aggregates(first) == aggregates(second)
    assert updates(first) == updates(second)
    assert len(updates(first)) == 6
    losses = world.events("first", "evaluated")[-1]["losses"].values()
    assert all(loss["global"] < loss["base"] for loss in losses)
    assert world.events("first", "finished")


def test_another_seed_gives_another_adapter(world: World) -> None:
    assert aggregates(world.run("first", rounds=1)) != aggregates(world.run("second", rounds=1, seed=8))


@pytest.mark.parametrize("rule", ["fedavg", "stack", "svd"])
def test_every_other_rule_runs_too(world: World, rule: str) -> None:
    run = world.run(rule, aggregation=rule)
    assert [len(signed.value.admitted) for signed in run.records()] == [3, 3]
    assert len(world.events(rule, "evaluated")[-1]["losses"]) == 3


def test_every_round_is_committed(world: World) -> None:
    run = world.run("one")
    for signed in run.records():
        found = world.ledger.read(signed.value.key)
        assert found is not None
        assert found[0] == run.commitment(signed.value)


def test_isolated_lanes_are_composed_and_measured(world: World) -> None:
    world.run("lanes", **{"lane-size": 1, "rounds": 1})
    (evaluated,) = world.events("lanes", "evaluated")
    assert len(evaluated["losses"]) == 3
    assert len({signed.value.lane for signed in world.state.run("lanes").records()}) == 3


# --- a hostile organisation in a real run --------------------------------------------------------------------------


class Hostile:
    """The real ClientApp, with what one organisation replies changed and signed again by `key`."""

    def __init__(self, name: str, tamper: Tamper, signer: str = "") -> None:
        self.address = keys.derive(7, name).address
        self.key = keys.derive(7, signer or name)
        self.tamper = tamper

    def __call__(self, message: Message, context: Context) -> Message:
        reply = client(message, context)
        if message.metadata.message_type != TRAIN:
            return reply
        task = Task.from_content(message.content)
        if task.organisation == self.address:
            honest = Reply.from_content(reply.content).signed.value
            manifest, update = self.tamper(honest, codec.unpack(reply.content, "update"))
            return Message(training.reply(manifest.sign(self.key, task.genesis.chain), update), reply_to=message)
        return reply


def _with(manifest: UpdateManifest, **changes: Any) -> UpdateManifest:
    return UpdateManifest.from_dict(manifest.to_dict() | changes)


def _changed(make: Callable[[Any], Any]) -> Tamper:
    def tamper(manifest: UpdateManifest, update: AdapterState) -> tuple[UpdateManifest, AdapterState]:
        first = next(iter(update))
        sent = AdapterState({**update.arrays, first: make(update[first])})
        return _with(manifest, update=sent.digest), sent

    return tamper


class Replay:
    """Sends what it sent first, for ever."""

    def __init__(self) -> None:
        self.first: tuple[UpdateManifest, AdapterState] | None = None

    def __call__(self, manifest: UpdateManifest, update: AdapterState) -> tuple[UpdateManifest, AdapterState]:
        self.first = self.first or (manifest, update)
        return self.first


ATTACKS: dict[str, tuple[str, Callable[[], Hostile], int]] = {
    "NaN": ("not-finite", lambda: Hostile("medical", _changed(lambda a: a * np.float32(np.nan))), 2),
    "a wrong shape": ("wrong-shape", lambda: Hostile("medical", _changed(lambda a: np.ones((1,), np.float32))), 2),
    "a forged signature": ("forged-signature", lambda: Hostile("medical", lambda m, u: (m, u), signer="coding"), 2),
    "inflated examples": (
        "inflated-examples",
        lambda: Hostile("medical", lambda m, u: (_with(m, examples=10**9), u)),
        2,
    ),
    "a replay": ("wrong-round", lambda: Hostile("medical", Replay()), 1),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_hostile_organisation_is_rejected_and_the_run_completes(world: World, attack: str) -> None:
    reason, make, times = ATTACKS[attack]
    run = world.run("attacked", through=make(), wire="fp32")  # as the attackers write
    records = [signed.verified(run.genesis) for signed in run.records()]
    rejected = [(r.reason, r.organisation) for record in records for r in record.rejected]
    assert rejected == [(reason, keys.derive(7, "medical").address)] * times
    assert [record.round for record in records] == [1, 2]
    assert all(len(record.admitted) >= 2 for record in records)
    assert world.events("attacked", "finished")


def test_an_organisation_that_lies_about_its_losses_does_not_end_the_run(world: World) -> None:
    def lying(message: Message, context: Context) -> Message:
        reply = client(message, context)
        if message.metadata.message_type == EVALUATE:
            reply.content["losses"] = MetricRecord({"global": float("nan")})
        return reply

    world.run("lied", through=lying, rounds=1)
    assert world.events("lied", "evaluated")[-1]["losses"] == {}


# --- a server that cheats ------------------------------------------------------------------------------------------


def _tampered_task(change: Callable[[dict[str, Any]], None]) -> Callable[[Message, Context], Message]:
    def cheat(message: Message, context: Context) -> Message:
        if message.metadata.message_type == TRAIN:
            records = message.content.config_records
            task, genesis = (
                cast(dict[str, Any], from_json(cast(bytes, records[name]["json"]))) for name in ("task", "genesis")
            )
            task["genesis"] = genesis
            change(task)
            shown = to_json(genesis)
            task["genesis"] = digest("federation", shown)
            message.content["genesis"] = ConfigRecord({"json": shown})
            message.content["task"] = ConfigRecord({"json": to_json(task)})
        return client(message, context)

    return cheat


CHEATS: dict[str, Callable[[dict[str, Any]], None]] = {
    "a lane that is not its own": lambda task: task.update(lane=1),
    "no parent record": lambda task: task.update(parent=None, salts=None, round=2),
    "another base": lambda task: task["genesis"]["founded"]["base"].update(digest="0x" + "11" * 32),
    "another shared A": lambda task: task["genesis"]["founded"].update(shared_a="0x" + "11" * 32),
    "fewer examples than registered": lambda task: [
        o.update(examples=1) for o in task["genesis"]["founded"]["organisations"]
    ],
}


@pytest.mark.parametrize("cheat", CHEATS)
def test_organisations_do_not_train_when_they_are_sent(world: World, cheat: str) -> None:
    with pytest.raises(FoedusError):
        world.run("cheated", through=_tampered_task(CHEATS[cheat]), retries=0, rounds=1)
    (signed,) = world.state.run("cheated").records()
    assert {r.reason for r in signed.value.rejected} == {"objected"}
    assert all("expected" in r.detail for r in signed.value.rejected)


# --- resuming ------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Ends a run as a signal would."""


def _dying_in_round(number: int, after: int = 0) -> Callable[[Message, Context], Message]:
    """Killed when so many organisations have answered in a round."""
    left = [after]

    def die(message: Message, context: Context) -> Message:
        if message.metadata.message_type == TRAIN and Task.from_content(message.content).round == number:
            if not left[0]:
                raise Killed
            left[0] -= 1
        return client(message, context)

    return die


@pytest.mark.parametrize("after", [0, 2])
def test_a_resumed_run_ends_with_the_digests_of_one_never_killed(world: World, after: int) -> None:
    calm = world.run("calm")
    with pytest.raises(Killed):
        world.run("killed", through=_dying_in_round(2, after))
    assert len(list(world.state.run("killed").records())) == 1
    resumed = world.run("killed", resume=True)
    assert aggregates(resumed) == aggregates(calm)
    assert [len(signed.value.admitted) for signed in resumed.records()] == [3, 3]
    assert not world.events("killed", "objected")


def test_a_round_that_is_tried_again_is_no_reason_to_object(world: World) -> None:
    failures = [True]

    def failing_once(message: Message, context: Context) -> Message:
        if message.metadata.message_type == TRAIN:
            task = Task.from_content(message.content)
            if task.round == 2 and task.organisation == keys.derive(7, "coding").address and failures:
                failures.pop()
                raise OSError("out of order")
        return client(message, context)

    run = world.run("tried", through=failing_once, rounds=3, quorum=3)
    assert [len(signed.value.admitted) for signed in run.records()] == [3, 0, 3, 3]
    assert not world.events("tried", "objected")


def test_a_run_that_is_being_written_has_no_second_writer(world: World) -> None:
    with locked(world.state.lock("one")), pytest.raises(RunLockedError):
        world.run("one")
    assert not world.state.run("one").started


def test_a_run_is_not_started_twice(world: World) -> None:
    world.run("one", rounds=1)
    with pytest.raises(UsageError, match="run one exists already"):
        world.run("one", rounds=1)


@pytest.mark.parametrize(("key", "value"), [("rank", 4), ("seed", 8), ("local-steps", 3), ("aggregation", "fedavg")])
def test_a_run_is_not_resumed_with_other_settings(world: World, key: str, value: Any) -> None:
    world.run("one", rounds=1)
    with pytest.raises(ConfigError, match=f"{key}: expected .*, as in the genesis, got {value!r}"):
        world.run("one", rounds=1, resume=True, **{key: value})


def test_a_failure_is_the_last_event(world: World) -> None:
    with pytest.raises(ConfigError):
        world.run("bad", quorum=9)
    (failed,) = world.events("bad", "failed")
    assert failed["exit_code"] == 2
    assert "quorum: expected at most 3, the members of the smallest lane, got 9" in failed["error"]


def test_a_deployment_says_how_many_organisations_it_waits_for(world: World) -> None:
    own = {"coordinator-key": "/outside/coordinator.key"}
    with pytest.raises(ConfigError, match="organisations: expected the number that a deployment waits for, got 0"):
        world.run("deployed", **own)


def test_a_simulation_is_more_patient_with_its_nodes_which_import_a_model_s_libraries_first(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    def wait(_bindings: Bindings, _grid: object, _expected: int, timeout: float) -> None:
        waited.append(timeout)
        raise RunError("nobody came")

    monkeypatch.setattr(Bindings, "wait", wait)
    keys.create(tmp_path / "own.key")
    for settings in ({}, {"coordinator-key": str(tmp_path / "own.key"), "organisations": 3}):
        with pytest.raises(RunError, match="nobody came"):
            world.run("waiting", **settings)
    simulation, deployment = waited
    assert simulation >= 600 > deployment


def test_a_holder_that_answers_late_gives_its_receipt_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.run("one", rounds=1)
    waiting, pull = {1: 3}, InlineGrid.pull_messages

    def late(grid: InlineGrid, names: Iterable[str]) -> list[Message]:
        """Replies, of which node 1's come when they are asked for the fourth time."""
        (name,) = names
        node = grid.replies[name].metadata.src_node_id if name in grid.replies else 0
        if waiting.get(node):
            waiting[node] -= 1
            return []
        return pull(grid, [name])

    monkeypatch.setattr(InlineGrid, "pull_messages", late)
    world.run("one", nodes=3, rounds=1, mode="unlearn", organisation="coding", method="remove")
    assert not waiting[1]
    assert len(world.events("one", "receipt")) == 3
    assert not world.events("one", "receipt-missing")


def test_names_of_lanes_and_members_are_fixed_at_the_start(world: World) -> None:
    genesis = world.run("one", rounds=1).genesis
    assert [o.name for o in sorted(genesis.organisations, key=lambda o: o.name)] == ["coding", "financial", "medical"]
    assert all(o.derived for o in genesis.organisations)
    assert genesis.coordinator == keys.derive(7, "coordinator").address
    assert genesis.environment["threads"] == "1"
    assert isinstance(next(world.state.run("one").records()).value, RoundRecord)


def test_where_the_coordinator_has_a_key_of_its_own_all_founders_have() -> None:
    no_chains = cast(Any, None)  # without require-registration none is read
    assert founders_of(RunConfig(coordinator_key="/its/key"), no_chains).own_keys
    assert not founders_of(RunConfig(), no_chains).own_keys
