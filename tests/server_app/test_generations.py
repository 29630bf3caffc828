"""A federation goes on in a new generation: the real ServerApp and ClientApps, after an erasure made by hand."""

import pytest

from chain.audit.run import verify
from core import keys
from core.canonical import Address
from core.generations import GenerationRecord
from core.lanes import Lane
from core.storage.run_folder import RunFolder
from llm.served import serving
from tests.behaviours.runs import attest
from tests.server_app.worlds import World

COORDINATOR = keys.derive(7, "coordinator")
GONE = keys.derive(7, "medical").address


@pytest.fixture(autouse=True)
def _made_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """These erasures are never certified: here a resumed run trains what the erasure itself would train."""
    monkeypatch.setattr(RunFolder, "check_settled", lambda _: None)


def fork(world: World, run: RunFolder, parent_round: int, gone: Address = GONE, lane: int = 0) -> GenerationRecord:
    """An erasure moves the lane's head."""
    line, generation = run.lineage(lane), len(run.generations(lane))
    parent = next((s.value for s in line if s.value.round == parent_round), None)
    *_, newest = (s.value for s in run.records() if s.value.lane == lane)
    attested = attest(run.genesis, key_of(run, gone), lane, generation + 1, parent)
    record = GenerationRecord(
        genesis=run.genesis.digest,
        lane=lane,
        generation=generation + 1,
        parent_generation=parent.generation if parent else 0,
        parent_round=parent_round,
        parent=parent.digest if parent else run.genesis.digest,
        previous=newest.digest,
        rounds=attested.value.rounds,
        erasure=attested.value.erasure,
        members=tuple(member for member in run.members(lane, generation) if member != gone),
    )
    hidden = attested.value.hide(attested.value.digest)
    world.ledger.attest(record.genesis, record.erasure, lane, hidden)
    run.attest(attested)
    world.ledger.open_generation(record.opening)
    run.open_generation(record.sign(COORDINATOR, run.genesis.chain))
    return record


def key_of(run: RunFolder, organisation: Address) -> keys.Key:
    return keys.derive(7, run.genesis.named(organisation).name)


@pytest.mark.parametrize("parent_round", [0, 1])
def test_a_federation_goes_on_from_an_earlier_round(world: World, parent_round: int) -> None:
    run = world.run("forked", rounds=3)
    opening = fork(world, run, parent_round)
    head = Lane.restore(run, 0, serving(run).state.states[0])
    assert (head.round, head.generation, head.members) == (parent_round, 1, opening.members)
    run = world.run("forked", resume=True, rounds=3)
    line = [(s.value.generation, s.value.round, len(s.value.admitted)) for s in run.lineage(0)]
    assert line == [(0, n, 3) for n in range(1, parent_round + 1)] + [(1, n, 2) for n in range(parent_round + 1, 4)]
    assert not [r for s in run.records() for r in s.value.rejected]
    assert not world.events("forked", "objected")
    report = verify(run, world.ledger)
    assert report.failures == ()
    assert report.recomputed == 6 - parent_round
    assert serving(run).state.digest == run.lineage(0)[-1].value.aggregate


def test_a_forked_federation_may_fork_again(world: World) -> None:
    run = world.run("forked", rounds=3)
    fork(world, run, 1)
    run = world.run("forked", resume=True, rounds=3)
    fork(world, run, 2, keys.derive(7, "coding").address)
    run = world.run("forked", resume=True, rounds=3)
    assert [(s.value.generation, s.value.round) for s in run.lineage(0)] == [(0, 1), (1, 2), (2, 3)]
    assert not [r for s in run.records() for r in s.value.rejected]
    assert verify(run, world.ledger).failures == ()


def test_a_lane_in_which_nobody_is_left_serves_nothing(world: World) -> None:
    changes = {"lane-size": 1, "rounds": 2}
    run = world.run("alone", **changes)
    (lane,) = run.genesis.lanes_of(GONE)
    fork(world, run, 0, lane=lane)
    run = world.run("alone", resume=True, **changes)
    assert run.members(lane, 1) == ()
    assert [len(run.lineage(index)) for index in range(3)] == [0 if index == lane else 2 for index in range(3)]
    assert verify(run, world.ledger).failures == ()
    assert world.events("alone", "finished")
