"""One seed, one result: whatever the salts, the run ids and the number of nodes."""

from collections.abc import Callable

import pytest

from core.rounds import RoundRecord
from core.storage.state_folder import State
from tests.commands import World

pytestmark = pytest.mark.chain


def records(world: World) -> list[RoundRecord]:
    return [signed.value for signed in State(world.state).existing().records()]


def learnt(world: World) -> list[tuple[str, tuple[str, ...]]]:
    """Of every round the aggregate's digest and the updates'."""
    return [(r.aggregate, tuple(a.signed.value.update for a in r.admitted)) for r in records(world)]


def test_two_runs_with_one_seed_are_equal_but_for_their_salts(new_world: Callable[[], World]) -> None:
    first, second = new_world(), new_world()
    for world in (first, second):
        assert world.inline(rounds=2).code == 0
    assert learnt(first) == learnt(second)
    runs = [State(world.state).existing() for world in (first, second)]
    salted = [run.commitment(signed.value) for run in runs for signed in run.records()]
    assert len({commitment.aggregate for commitment in salted}) == 4


def test_another_seed_is_another_run(new_world: Callable[[], World]) -> None:
    first, second = new_world(), new_world()
    assert first.inline().code == second.inline("--seed", 8).code == 0
    assert learnt(first) != learnt(second)


def test_the_number_of_nodes_changes_nothing(new_world: Callable[[], World], monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for nodes in (1, 2, 4):
        monkeypatch.setattr("console.backends.federation.NODES", nodes)
        world = new_world()
        assert world.inline().code == 0
        found.append(learnt(world))
    assert found[0] == found[1] == found[2]
