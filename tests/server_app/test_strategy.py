"""The strategy on real messages and records, with organisations that need no model."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

import core.storage.blobs
from core.adapter import AdapterState
from core.aggregation import RULES, WeightedUpdate, rank_of, weights
from core.canonical import Digest
from core.composition import Composition
from core.erasures import OpenedRequest
from core.errors import QuorumError, UsageError
from core.messages import codec
from core.messages.refusal import Cause, Refusal, Refused
from core.messages.training import Reply, Task
from core.round_key import RoundKey
from core.rounds import RoundRecord
from server_app.strategy import Foedus
from tests import federation as f
from tests.server_app.clients import Behaviour, Federation, TestGrid, answer, fail, name_of, sequence, with_array

TWO = ("medical", "coding")
ALL_RULES = pytest.mark.parametrize("rule", RULES)


def settings(rule: str) -> dict[str, Any]:
    """A stack's rank must fit the narrow layers of the test federation."""
    return {"rule": rule, "names": TWO, "rounds": 1} if rule == "stack" else {"rule": rule, "rounds": 3}


# --- what a run is -------------------------------------------------------------------------------------------------


@ALL_RULES
def test_every_round_is_recorded_signed_and_follows_the_one_before(tmp_path: Path, rule: str) -> None:
    federation = Federation.create(tmp_path, **settings(rule))
    strategy = federation.start()
    parent = federation.genesis.digest
    records = [signed.verified(federation.genesis) for signed in federation.run.records()]
    assert [r.round for r in records] == list(range(1, federation.genesis.training.rounds + 1))
    for record in records:
        assert record.parent == parent
        parent = record.digest
    assert strategy.rounds.served.digest == records[-1].aggregate


@ALL_RULES
def test_every_aggregate_can_be_computed_again_from_what_is_stored(tmp_path: Path, rule: str) -> None:
    federation = Federation.create(tmp_path, **settings(rule))
    federation.start()
    state = RULES[rule].initial(f.fresh())
    for signed in federation.run.records():
        admitted = signed.value.admitted
        shares = weights({a.organisation: f.EXAMPLES[name_of(a.organisation)] for a in admitted}, 1.0)
        assert {a.organisation: a.weight for a in admitted} == shares
        stored = [federation.run.artifacts.open(a.signed.value.update) for a in admitted]
        updates = [WeightedUpdate(a.organisation, a.weight, s) for a, s in zip(admitted, stored, strict=True)]
        state, residual = RULES[rule].aggregate(state, updates)
        assert state.digest == signed.value.aggregate
        assert residual == signed.value.residual


@ALL_RULES
def test_order_of_arrival_and_number_of_nodes_do_not_change_the_digest(tmp_path: Path, rule: str) -> None:
    digests = set()
    for run, (nodes, order) in enumerate([(1, None), (2, 1), (4, 2)]):
        federation = Federation.create(tmp_path / str(run), nodes=nodes, **settings(rule))
        strategy = federation.start(TestGrid(federation.clients, order))
        digests.add((strategy.rounds.served.digest, *(s.value.digest for s in federation.run.records())))
    assert len(digests) == 1


def test_a_stack_grows_by_every_update(tmp_path: Path) -> None:
    federation = Federation.create(tmp_path, **settings("stack"))
    assert rank_of(federation.start().rounds.served.states[0]) == 4


def test_every_round_stands_on_the_ledger_under_salted_digests(tmp_path: Path) -> None:
    federation = Federation.create(tmp_path, rounds=3)
    federation.start()
    heads: list[Digest] = []
    for signed in federation.run.records():
        found = federation.ledger.read(signed.value.key)
        assert found is not None
        assert found[0] == federation.run.commitment(signed.value)
        assert signed.value.aggregate not in (found[0].aggregate, found[0].updates_root)
        heads.append(found[0].aggregate)
    assert len(set(heads)) == 3


def test_organisations_are_sent_the_record_that_vouches_for_what_they_train(tmp_path: Path) -> None:
    federation = Federation.create(tmp_path, rounds=2)
    federation.start()
    first, second = (list(group) for _, group in itertools.groupby(federation.clients.trained, lambda task: task.round))
    assert all(task.parent is None for task in first)
    (head,) = (signed for signed in federation.run.records() if signed.value.round == 1)
    for task in second:
        assert task.parent == head
        assert task.state.digest == head.value.aggregate
    for task in federation.clients.evaluated:
        assert task.parent is not None
        assert task.state.digest == task.parent.value.aggregate


def test_what_happened_is_in_the_event_log(tmp_path: Path) -> None:
    federation = Federation.create(tmp_path, TWO, rounds=2)
    strategy = federation.start()
    started = federation.events_named("round-started")
    assert [(e["round"], len(e["asked"])) for e in started] == [(1, 2), (2, 2)]
    assert [e["loss"] for e in federation.events_named("admitted")] == [1.0] * 4
    closed = federation.events_named("round-closed")
    assert [(e["lane"], e["round"], e["attempt"], e["admitted"]) for e in closed] == [(0, 1, 1, 2), (0, 2, 1, 2)]
    evaluated = federation.events_named("evaluated")[-1]
    assert evaluated["aggregate"] == strategy.rounds.served.digest
    assert evaluated["losses"] == {f.address(name): {"base": 2.0, "global": 1.0} for name in TWO}
    assert evaluated["validation"] == {"all": 0.5}


# --- organisations that misbehave ----------------------------------------------------------------------------------


def _nan(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.full_like(array, np.nan)


def _unsigned(task: Task) -> RecordDict:
    content = answer(task)
    unsigned = Reply.from_content(content).signed.to_dict() | {"signatures": None}
    content["manifest"] = codec.json_record(unsigned)
    return content


def _without_update(task: Task) -> RecordDict:
    content = answer(task)
    content["update"] = ArrayRecord({"bytes": Array(np.zeros(9, np.uint8))})
    return content


def _stranger(task: Task) -> RecordDict:
    return answer(task, organisation=f.COORDINATOR.address)


def _foreign_metrics(task: Task) -> RecordDict:
    content = answer(task)
    content["more"] = MetricRecord({"num-examples": 10**9})
    content["loss"] = MetricRecord({"loss": float("nan")})
    return content


HOSTILE: dict[str, tuple[str, Behaviour]] = {
    "sends NaN": ("not-finite", lambda t: answer(t, with_array(t, _nan))),
    "sends a shape that would broadcast": (
        "wrong-shape",
        lambda t: answer(t, with_array(t, lambda a: np.ones((1,), np.float32))),
    ),
    "sends double precision": ("wrong-dtype", lambda t: answer(t, with_array(t, lambda a: a.astype(np.float64)))),
    "sends a huge update": ("norm-above-bound", lambda t: answer(t, with_array(t, lambda a: a * np.float32(1e6)))),
    "sends one tensor": (
        "missing-tensor",
        lambda t: answer(t, AdapterState({"model.a.lora_B": np.zeros((5, 2), np.float32)})),
    ),
    "forges a signature": ("forged-signature", lambda t: answer(t, signer="coding")),
    "does not sign": ("malformed", _unsigned),
    "inflates its examples": ("inflated-examples", lambda t: answer(t, examples=10**9)),
    "bids more than there is": ("bid-out-of-range", lambda t: answer(t, bid=replace(_bid(), steps=10**6))),
    "answers for a stranger": ("unknown-key", _stranger),
    "answers another federation": ("wrong-federation", lambda t: answer(t, genesis=f.other("federation"))),
    "answers another round": ("wrong-round", lambda t: answer(t, round=t.round + 1)),
    "trains from another parent": ("wrong-parent", lambda t: answer(t, parent=f.other("parent"))),
    "names another update": ("digest-mismatch", lambda t: answer(t, update=f.other("update"))),
    "sends something else": ("malformed", lambda t: RecordDict({"manifest": ConfigRecord({"json": b"{}"})})),
    "sends nothing": ("malformed", lambda t: RecordDict()),
    "sends another kind of array": ("malformed", _without_update),
    "fails": ("client-error", fail),
}


def _bid() -> Any:
    return f.manifest(f.genesis()).bid


@pytest.fixture(scope="module")
def without_medical(tmp_path_factory: pytest.TempPathFactory) -> Digest:
    """The digest of a run in which medical never answers."""
    federation = Federation.create(tmp_path_factory.mktemp("silent"), rounds=2)
    grid = TestGrid(federation.clients)
    grid.silent = {f.address("medical")}
    return federation.start(grid, timeout=0.1).rounds.served.digest


@pytest.mark.parametrize("what", HOSTILE)
def test_an_organisation_is_rejected_and_the_others_go_on_when_it(
    tmp_path: Path, what: str, without_medical: Digest
) -> None:
    reason, behave = HOSTILE[what]
    federation = Federation.create(tmp_path, rounds=2)
    federation.clients.behave = {"medical": behave}
    strategy = federation.start()
    assert federation.rejections() == [(1, 1, "medical", reason), (2, 1, "medical", reason)]
    assert strategy.rounds.served.digest == without_medical
    assert [e["reason"] for e in federation.events_named("rejected")] == [reason, reason]


def test_records_besides_the_ones_asked_for_change_nothing(tmp_path: Path) -> None:
    federation = Federation.create(tmp_path / "more", rounds=1)
    federation.clients.behave = {"medical": _foreign_metrics}
    plain = Federation.create(tmp_path / "plain", rounds=1)
    assert federation.start().rounds.served == plain.start().rounds.served
    assert federation.rejections() == []


def test_an_old_reply_sent_again_is_refused(tmp_path: Path) -> None:
    asked: list[Task] = []

    def replay(task: Task) -> RecordDict:
        asked.append(task)
        return answer(asked[0])

    federation = Federation.create(tmp_path, rounds=2)
    federation.clients.behave = {"medical": replay}
    federation.start()
    assert federation.rejections() == [(2, 1, "medical", "wrong-round")]


def test_a_nonce_is_worth_one_update(tmp_path: Path) -> None:
    federation = Federation.create(tmp_path, rounds=2)
    federation.clients.behave = {"medical": lambda task: answer(task, nonce=f.other("always this one"))}
    federation.start()
    assert federation.rejections() == [(2, 1, "medical", "replayed-nonce")]


def test_a_nonce_is_remembered_when_the_run_is_resumed(tmp_path: Path) -> None:
    federation = Federation.create(tmp_path, rounds=1)
    federation.clients.behave = {"medical": lambda task: answer(task, nonce=f.other("always this one"))}
    federation.start()
    strategy = federation.strategy()
    assert f.other("always this one") in strategy.rounds.nonces


def test_a_rejection_quotes_a_client_briefly_and_without_control_characters(tmp_path: Path) -> None:
    federation = Federation.create(tmp_path, rounds=1)
    federation.clients.behave = {"medical": fail}
    federation.start()
    ((rejection,),) = (signed.value.rejected for signed in federation.run.records())
    assert rejection.detail.startswith("\\x1b[31mlast line")
    assert len(rejection.detail) < 400
    assert rejection.detail.isprintable()


def test_an_organisation_that_keeps_silent_is_recorded_after_the_timeout(tmp_path: Path) -> None:
    federation = Federation.create(tmp_path, rounds=1)
    grid = TestGrid(federation.clients)
    grid.silent = {f.address("coding")}
    federation.start(grid, timeout=0.1)
    assert federation.rejections() == [(1, 1, "coding", "no-reply")]


def test_an_organisation_that_cannot_be_reached_is_recorded(tmp_path: Path) -> None:
    federation = Federation.create(tmp_path, rounds=1)
    grid = TestGrid(federation.clients)
    grid.unsendable = {f.address("coding")}
    federation.start(grid)
    assert federation.rejections() == [(1, 1, "coding", "no-reply")]


def test_the_organisations_of_a_node_that_vanishes_are_recorded_and_the_rest_goes_on(tmp_path: Path) -> None:
    federation = Federation.create(tmp_path, rounds=2)
    grid = TestGrid(federation.clients)
    strategy = federation.strategy(commit=lambda record: (federation.commit(record), grid.gone.add(2)))
    strategy.start(grid)
    gone = {(2, 1, name, "not-connected") for name in list(f.EXAMPLES)[1::2]}
    assert set(federation.rejections()) == gone
    assert strategy.rounds.round == 2


def test_a_node_that_comes_back_takes_part_again(tmp_path: Path) -> None:
    federation = Federation.create(tmp_path, rounds=3)
    grid = TestGrid(federation.clients)

    def commit(record: RoundRecord) -> None:
        federation.commit(record)
        grid.gone = {2} if record.round == 1 else set()

    federation.start(grid, commit=commit)
    assert {number for number, *_ in federation.rejections()} == {2}


LYING: dict[str, Callable[[], RecordDict]] = {
    "so large that a sum overflows": lambda: RecordDict(
        {"losses": MetricRecord(dict.fromkeys(("base", "global"), 1.7e308))}
    ),
    "of other names": lambda: RecordDict({"losses": MetricRecord({"x\x1b[31m": 1.0})}),
    "one of two": lambda: RecordDict({"losses": MetricRecord({"global": 1.0})}),
    "NaN": lambda: RecordDict({"losses": MetricRecord({"base": 1.0, "global": float("nan")})}),
    "lists": lambda: RecordDict({"losses": MetricRecord({"global": [1.0]})}),
    "nothing": RecordDict,
    "an error": lambda: fail(None),  # type: ignore[arg-type] # it fails whatever the task
}


@pytest.mark.parametrize("what", LYING)
def test_an_evaluation_that_is_no_loss_is_left_out_and_the_run_goes_on(tmp_path: Path, what: str) -> None:
    federation = Federation.create(tmp_path, TWO, rounds=1)
    federation.clients.losses = {"medical": LYING[what]}
    federation.start()
    (evaluated,) = federation.events_named("evaluated")
    assert set(evaluated["losses"]) == {f.address("coding")}


@pytest.mark.parametrize("what", LYING)
def test_a_run_whose_evaluations_were_all_lies_ends_and_is_resumed(tmp_path: Path, what: str) -> None:
    """Of two losses of 1.7e308 no sum is finite: what was made of them must not end the run, nor any that goes on."""
    federation = Federation.create(tmp_path, TWO, rounds=2)
    federation.clients.losses = dict.fromkeys(TWO, LYING[what])

    def killed(record: RoundRecord) -> None:
        federation.commit(record)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        federation.start(commit=killed)
    for lies in (federation.clients.losses, federation.clients.losses, {}):
        federation.clients.losses = lies
        strategy, grid = federation.strategy(), TestGrid(federation.clients)
        strategy.bindings.refresh(grid)  # also a run that is complete is evaluated again
        strategy.start(grid)
        assert strategy.rounds.round == 2
    assert not any(event["losses"] for event in federation.events_named("evaluated")[:-1])
    assert set(federation.events_named("evaluated")[-1]["losses"]) == {f.address(name) for name in TWO}


# --- quorum --------------------------------------------------------------------------------------------------------


def test_a_round_below_its_quorum_is_recorded_empty_and_tried_again(tmp_path: Path) -> None:
    federation = Federation.create(tmp_path, TWO, rounds=1, quorum=2)
    federation.clients.behave = {"medical": sequence(fail, answer), "coding": sequence(answer, _fresh_nonce)}
    strategy = federation.start()
    empty, closed = (signed.value for signed in federation.run.records())
    assert (empty.attempt, empty.admitted, empty.aggregate) == (1, (), strategy.rounds.rule.initial(f.fresh()).digest)
    assert {(name_of(r.organisation), r.reason) for r in empty.rejected} == {
        ("medical", "client-error"),
        ("coding", "below-quorum"),
    }
    assert (closed.attempt, len(closed.admitted), closed.parent) == (2, 2, federation.genesis.digest)


@pytest.mark.parametrize("policy", ["round-robin", "greedy"])
def test_one_that_is_gone_ends_no_run_in_which_enough_others_are_left(tmp_path: Path, policy: str) -> None:
    names = (*TWO, "financial", "mathematical")
    federation = Federation.create(tmp_path, names, nodes=4, rounds=4, quorum=2, retries=2, policy=policy, fraction=0.5)
    federation.clients.behave = dict.fromkeys(names, _always_fresh) | {"coding": fail}
    assert federation.start().rounds.round == 4
    failed = [s.value.round for s in federation.run.records() if not s.value.admitted]
    assert 0 < len(failed) == len(set(failed))  # the second attempt is enough


def _fresh_nonce(task: Task) -> RecordDict:
    return answer(task, nonce=f.other(f"second try {task.organisation}"))


def test_an_empty_round_is_not_committed(tmp_path: Path) -> None:
    federation = Federation.create(tmp_path, TWO, rounds=1, quorum=2)
    federation.clients.behave = {"medical": sequence(fail, answer), "coding": sequence(answer, _fresh_nonce)}
    committed: list[RoundKey] = []
    federation.start(commit=lambda record: committed.append(record.key))
    assert [key.round for key in committed] == [1]


def test_a_round_that_stays_below_its_quorum_ends_the_run(tmp_path: Path) -> None:
    federation = Federation.create(tmp_path, TWO, rounds=2, quorum=2, retries=2)
    federation.clients.behave = {"medical": fail}
    with pytest.raises(QuorumError, match=r"expected a quorum of 2, got fewer updates in 3 attempts; most often "):
        federation.start()
    assert [(s.value.round, s.value.attempt) for s in federation.run.records()] == [(1, 1), (1, 2), (1, 3)]


@pytest.mark.parametrize(("cause", "attempts"), [(Cause.MESSAGE, 1), (Cause.LEDGER_UNREACHABLE, 3)])
def test_an_objection_that_waiting_cannot_change_is_not_tried_again(
    tmp_path: Path, cause: Cause, attempts: int
) -> None:
    federation = Federation.create(tmp_path, TWO, rounds=1, quorum=2, retries=2)
    objection = Refusal(Refused.OBJECTED, cause, "no")
    federation.clients.behave = {"medical": lambda _: objection.to_content(), "coding": _always_fresh}
    with pytest.raises(QuorumError, match=f"expected a quorum of 2, got fewer updates in {attempts} attempts"):
        federation.start()
    assert len(list(federation.run.records())) == attempts


_NUMBERS = itertools.count()


def _always_fresh(task: Task) -> RecordDict:
    return answer(task, nonce=f.other(f"try {next(_NUMBERS)}"))


def test_attempts_are_counted_on_when_the_run_is_resumed(tmp_path: Path) -> None:
    federation = Federation.create(tmp_path, TWO, rounds=1, quorum=2, retries=0)
    federation.clients.behave = {"medical": fail}
    with pytest.raises(QuorumError):
        federation.start()
    federation.clients.behave = {"coding": _fresh_nonce}
    federation.start()
    assert [(s.value.attempt, len(s.value.admitted)) for s in federation.run.records()] == [(1, 0), (2, 2)]


def test_nobody_connected_is_a_round_below_its_quorum(tmp_path: Path) -> None:
    federation = Federation.create(tmp_path, TWO, rounds=1, retries=0)
    grid = TestGrid(federation.clients)
    grid.gone = {1, 2}
    with pytest.raises(QuorumError):
        federation.start(grid)
    assert {reason for *_, reason in federation.rejections()} == {"not-connected"}


# --- resuming ------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Ends a run as a signal would: nothing may catch it."""


def undisturbed(folder: Path, **changes: Any) -> tuple[Digest, list[Digest]]:
    federation = Federation.create(folder, **changes)
    strategy = federation.start()
    return strategy.rounds.served.digest, [s.value.digest for s in federation.run.records()]


@pytest.mark.parametrize("rule", ["frozen-a", "fedavg", "svd"])
def test_a_run_killed_after_any_write_ends_with_the_digest_of_one_never_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    expected = undisturbed(tmp_path / "calm", names=TWO, rule=rule, rounds=2)
    federation = Federation.create(tmp_path / "killed", TWO, rule=rule, rounds=2)
    real, kills = core.storage.blobs._write, 0

    def deadly(path: Path, parts: Any) -> None:
        real(path, parts)
        raise Killed

    while federation.rounds().round < 2:
        # Every life of the run gets one write further than the last, and dies right after it.
        monkeypatch.setattr(core.storage.blobs, "_write", _nth(kills + 1, real, deadly))
        try:
            federation.start()
        except Killed:
            kills += 1
        monkeypatch.undo()
    strategy = federation.start()
    assert kills >= 4
    assert (strategy.rounds.served.digest, [s.value.digest for s in federation.run.records()]) == expected


def _nth(count: int, usual: Callable[..., Any], last: Callable[..., Any]) -> Callable[..., Any]:
    calls = itertools.count(1)

    def call(*arguments: Any) -> None:
        (last if next(calls) == count else usual)(*arguments)

    return call


def test_a_run_killed_before_the_ledger_heard_of_a_round_can_still_tell_it(tmp_path: Path) -> None:
    federation = Federation.create(tmp_path, TWO, rounds=2)

    def dying(record: RoundRecord) -> None:
        raise Killed

    with pytest.raises(Killed):
        federation.start(commit=dying)
    (first,) = federation.run.records()
    federation.ledger.commit(federation.run.commitment(first.value))
    federation.start()
    for signed in federation.run.records():
        assert federation.ledger.read(signed.value.key) is not None


def test_resuming_a_finished_run_changes_no_record(tmp_path: Path) -> None:
    federation = Federation.create(tmp_path, TWO, rounds=2)
    before = federation.start().rounds.served
    asked = len(federation.clients.trained)
    assert federation.start().rounds.served == before
    assert len(federation.clients.trained) == asked
    assert len(list(federation.run.records())) == 2


def test_a_lane_that_was_ahead_when_the_run_died_waits_for_the_others(tmp_path: Path) -> None:
    expected = undisturbed(tmp_path / "calm", names=TWO, lanes=_alone(TWO), rounds=2)
    federation = Federation.create(tmp_path / "killed", TWO, lanes=_alone(TWO), rounds=2)
    with pytest.raises(Killed):
        federation.start(commit=_raising(Killed))
    assert [lane.round for lane in federation.rounds().lanes] == [1, 0]
    strategy = federation.start(commit=lambda record: None)
    assert (strategy.rounds.served.digest, [s.value.digest for s in federation.run.records()]) == expected


def _raising(error: type[BaseException]) -> Callable[[Any], None]:
    def commit(record: RoundRecord) -> None:
        raise error

    return commit


# --- lanes and participation ---------------------------------------------------------------------------------------


def _alone(names: tuple[str, ...]) -> tuple[tuple[Any, ...], ...]:
    return tuple((member.address,) for member in f.members(names))


def test_isolated_organisations_learn_nothing_from_each_other(tmp_path: Path) -> None:
    names = tuple(f.EXAMPLES)
    together = Federation.create(tmp_path / "together", names, lanes=_alone(names), rounds=2)
    strategy = together.start()
    assert len(strategy.rounds.lanes) == 4
    for name in names:
        alone = Federation.create(tmp_path / name, (name,), rounds=2).start().rounds
        (index,) = together.genesis.lanes_of(f.address(name))
        assert Composition.of(strategy.rounds.lanes[index].state) == alone.served


def test_what_is_served_of_lanes_is_their_sum_weighted_by_examples(tmp_path: Path) -> None:
    federation = Federation.create(tmp_path, TWO, lanes=_alone(TWO), rounds=1)
    strategy = federation.start()
    shares = {f.address("medical"): 0.2, f.address("coding"): 0.8}
    for name, array in strategy.rounds.served.states[0].arrays.items():
        parts = sum(shares[lane.members[0]] * lane.state[name].astype(np.float64) for lane in strategy.rounds.lanes)
        np.testing.assert_array_equal(array, np.asarray(parts).astype(np.float32))
    assert {task.state.digest for task in federation.clients.evaluated} == {strategy.rounds.served.states[0].digest}


def test_lanes_close_apart(tmp_path: Path) -> None:
    names = tuple(f.EXAMPLES)
    order = [member.address for member in f.members(names)]
    federation = Federation.create(tmp_path, names, lanes=(tuple(order[:2]), tuple(order[2:])), rounds=1, quorum=2)
    struggling = name_of(order[0])
    federation.clients.behave = {
        struggling: sequence(fail, answer),
        name_of(order[1]): sequence(answer, _fresh_nonce),
    }
    federation.start()
    places = [(s.value.lane, s.value.attempt, len(s.value.admitted)) for s in federation.run.records()]
    assert places == [(0, 1, 0), (0, 2, 2), (1, 1, 2)]
    assert len([task for task in federation.clients.trained if task.lane == 1]) == 2


def test_each_lane_is_a_chain_of_its_own_on_the_ledger(tmp_path: Path) -> None:
    federation = Federation.create(tmp_path, TWO, lanes=_alone(TWO), rounds=2)
    federation.start()
    for lane, number in itertools.product((0, 1), (1, 2)):
        assert federation.ledger.read(RoundKey(federation.genesis.digest, lane, 0, number)) is not None


def test_only_those_who_are_drawn_are_asked(tmp_path: Path) -> None:
    federation = Federation.create(tmp_path, rounds=4, policy="random", fraction=0.5)
    federation.start()
    asked = [[task.organisation for task in federation.clients.trained if task.round == n] for n in range(1, 5)]
    drawn = [event["asked"] for event in federation.events_named("round-started")]
    assert [sorted(names) for names in asked] == [sorted(names) for names in drawn]
    assert {len(names) for names in asked} != {4}


def test_a_round_is_measured_by_those_it_asked_and_the_last_by_everyone(tmp_path: Path) -> None:
    federation = Federation.create(tmp_path, rounds=3, policy="round-robin", fraction=0.5)
    federation.start()
    of = {n: {task.organisation for task in federation.clients.trained if task.round == n} for n in (1, 2, 3)}
    measured = [set(event["losses"]) for event in federation.events_named("evaluated")]
    assert measured == [of[1], of[2], set(federation.genesis.lanes[0])]
    assert [e["validation"] for e in federation.events_named("evaluated")] == [{}, {}, {"all": 0.5}]
    assert len(of[1]) == len(of[2]) == 2


# --- as any other strategy of Flower -------------------------------------------------------------------------------


def hooked(federation: Federation, rounds: int) -> Foedus:
    """A run through Flower's four hooks, with all messages and all replies at hand, as its own loop calls them."""
    strategy, grid = federation.strategy(), TestGrid(federation.clients)
    arrays, config = ArrayRecord(), ConfigRecord()
    for number in range(1, rounds + 1):
        messages = list(strategy.configure_train(number, arrays, config, grid))
        names = [name for message in messages for name in grid.push_messages([message])]
        replies = [reply for name in reversed(names) for reply in grid.pull_messages([name])]
        aggregated, _ = strategy.aggregate_train(number, replies)
        assert aggregated["bytes"].data == strategy.rounds.served.states[0].to_bytes()
        asked = list(strategy.configure_evaluate(number, arrays, config, grid))
        answers = [reply for message in asked for reply in grid.pull_messages(grid.push_messages([message]))]
        metrics = strategy.aggregate_evaluate(number, answers)
        assert metrics == MetricRecord({"base": 2.0, "global": 1.0})
    return strategy


def test_flowers_hooks_do_what_the_loop_does(tmp_path: Path) -> None:
    looped = Federation.create(tmp_path / "looped", rounds=2)
    by_hooks = Federation.create(tmp_path / "hooked", rounds=2)
    assert looped.start().rounds.served == hooked(by_hooks, 2).rounds.served
    assert [s.value for s in looped.run.records()] == [s.value for s in by_hooks.run.records()]


@pytest.mark.parametrize("what", HOSTILE)
def test_flowers_hooks_reject_as_the_loop_does_when_an_organisation(tmp_path: Path, what: str) -> None:
    reason, behave = HOSTILE[what]
    federation = Federation.create(tmp_path, rounds=1)
    federation.clients.behave = {"medical": behave}
    hooked(federation, 1)
    assert federation.rejections() == [(1, 1, "medical", reason)]


def test_the_result_of_a_run_holds_what_is_served_and_every_rounds_losses(tmp_path: Path) -> None:
    federation = Federation.create(tmp_path, rounds=2)
    strategy = federation.strategy()
    seen: list[int] = []

    def evaluate(number: int, arrays: ArrayRecord) -> MetricRecord:
        seen.append(number)
        return MetricRecord({"score": 1.0})

    result = strategy.start(TestGrid(federation.clients), evaluate_fn=evaluate)
    assert codec.unpack(RecordDict({"served": result.arrays}), "served") == strategy.rounds.served.states[0]
    assert result.evaluate_metrics_clientapp[2] == MetricRecord({"base": 2.0, "global": 1.0})
    assert seen == [1, 2]
    assert set(result.evaluate_metrics_serverapp) == {1, 2}


def test_unlearning_needs_a_ledger_to_erase_on(tmp_path: Path) -> None:
    strategy = Federation.create(tmp_path).strategy()
    with pytest.raises(UsageError, match="given no ledger"):
        strategy.unlearn(
            OpenedRequest.of(f.key("medical"), strategy.rounds.genesis, "remove", (), "a test", date(2026, 3, 1))
        )
