"""What organisations measure: with the task of the next round where nothing forbids it, taken together."""

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from flwr.app import RecordDict

from core.genesis import Genesis, Privacy
from core.messages.training import Task
from core.rounds import RoundRecord
from server_app import evaluation
from server_app.evaluation import RoundEvaluation, goes_with_task, means
from server_app.rounds import Rounds
from tests import federation as f
from tests.server_app.clients import Federation, TestGrid, answer, fail, sequence

TWO = ("medical", "coding")
LOSSES = {"base": 2.0, "global": 1.0}


def test_a_mean_is_over_those_who_measured_it() -> None:
    assert dict(means([{"base": 2.0, "global": 1.0}, {"global": 3.0}])) == {"base": 2.0, "global": 2.0}


def test_a_round_is_measured_with_the_next_ones_task_and_the_last_by_a_message_of_its_own(tmp_path: Path) -> None:
    federation = Federation.create(tmp_path, TWO, rounds=3)
    result = federation.strategy().start(TestGrid(federation.clients))
    assert [(task.round, task.measure) for task in federation.clients.evaluated] == [
        (2, True), (2, True), (3, True), (3, True), (4, False), (4, False),
    ]  # fmt: skip
    assert [task.measure for task in federation.clients.trained] == [False] * 2 + [True] * 4
    aggregates = [signed.value.aggregate for signed in federation.run.records()]
    told = federation.events_named("evaluated")
    assert [(event["round"], event["aggregate"]) for event in told] == list(enumerate(aggregates, 1))
    for event in told:
        assert event["losses"] == {f.address(name): LOSSES for name in TWO}
        assert event["validation"] == {"all": 0.5}
    assert {number: dict(losses) for number, losses in result.evaluate_metrics_clientapp.items()} == dict.fromkeys(
        (1, 2, 3), LOSSES
    )


def test_of_many_a_sample_measures_and_the_shared_set_is_measured_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "MOST_MEASURING", 3)
    federation = Federation.create(tmp_path, tuple(f.EXAMPLES), rounds=2)
    federation.strategy().start(TestGrid(federation.clients))
    last = federation.events_named("evaluated")[-1]
    assert len(last["losses"]) == 3
    assert last["validation"] == {"all": 0.5}
    rounds = federation.rounds()
    samples = [{asked.organisation for asked in RoundEvaluation(rounds, number).asked} for number in (1, 2)]
    assert samples == [set(last["losses"])] * 2, "the same each time, so that losses can be compared"


def after_one_round(folder: Path, **changes: Any) -> Rounds:
    """The lanes of a run of two rounds whose coordinator died behind the first."""
    federation = Federation.create(folder, TWO, rounds=2, **changes)

    def killed(_record: RoundRecord) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        federation.start(commit=killed)
    return federation.rounds()


FORBIDDEN: dict[str, Callable[[Genesis], Genesis]] = {
    "a policy that may ask others": lambda g: replace(g, participation=replace(g.participation, policy="random")),
    "agents that bid": lambda g: replace(g, participation=replace(g.participation, policy="q-learning")),
    "differential privacy": lambda g: replace(g, privacy=Privacy(8.0, 1e-5, 1.0)),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_task_asks_to_measure_where_that_would_change_who_measures(tmp_path: Path, what: str) -> None:
    rounds = after_one_round(tmp_path)
    assert [goes_with_task(rounds, number) for number in (1, 2)] == [False, True]
    rounds.genesis = FORBIDDEN[what](rounds.genesis)
    assert not goes_with_task(rounds, 2)


def test_no_task_asks_to_measure_where_another_state_is_served_than_is_trained(tmp_path: Path) -> None:
    lanes = tuple((f.address(name),) for name in TWO)
    apart = Federation.create(tmp_path / "lanes", TWO, rounds=2, lanes=lanes)
    apart.start()
    best = Federation.create(tmp_path / "best", TWO, rounds=3, serve="best")
    best.measures.losses = [3.0, 4.0, 2.0]
    best.start()
    assert [{task.round for task in each.clients.trained if task.measure} for each in (apart, best)] == [set(), {2}]
    assert [event["round"] for event in best.events_named("evaluated")] == [1, 2, 3]


def test_losses_count_although_the_round_they_came_with_is_tried_again(tmp_path: Path) -> None:
    federation = Federation.create(tmp_path, TWO, rounds=2, quorum=2)
    numbers = count()

    def again(task: Task) -> RecordDict:
        return answer(task, nonce=f.other(f"try {next(numbers)}"))

    federation.clients.behave = {"medical": sequence(again, fail, again), "coding": again}
    federation.start()
    assert federation.rejections()
    told = [(event["round"], set(event["losses"])) for event in federation.events_named("evaluated")]
    both = {f.address(name) for name in TWO}
    assert told == [(1, {f.address("coding")}), (1, both), (2, both)]
