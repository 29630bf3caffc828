"""The Q-table: its states, double Q-learning, what it was learnt from, and which tables are refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from agents.table import (
    CLASSES,
    STATES,
    Action,
    Learning,
    QTable,
    explain,
    parts_of,
    policy_table,
    read_table,
    state_of,
)
from core.canonical import to_json
from core.errors import UsageError
from core.update import Bid
from tests.agents.lives import agent, live


def test_there_are_fewer_than_500_states_each_with_a_number_of_its_own() -> None:
    assert STATES < 500
    assert [state_of(parts_of(state)) for state in range(STATES)] == list(range(STATES))
    assert parts_of(0) == dict.fromkeys(CLASSES, 0)


def test_one_table_moves_towards_what_the_other_says_of_its_favourite() -> None:
    table = QTable(Learning(discount=0.5, optimism=0.0))
    table.cells[7] = cell = replace(table[7], values=([0.0, 5.0, 1.0, 0.0], [0.0, 2.0, 9.0, 0.0]))
    table.learn(3, Action.LOW, 1.0, 7, coin=0.9)  # table 0, whose favourite in state 7 is LOW: the other says 2
    assert table[3].values[0][Action.LOW] == 1.0 + 0.5 * 2.0
    table.learn(3, Action.LOW, 1.0, 7, coin=0.1)  # table 1 prefers MEDIUM there, of which table 0 says 1
    assert table[3].values[1][Action.LOW] == 1.0 + 0.5 * 1.0
    table.learn(4, Action.LOW, -1.0, None, coin=0.9)
    assert table[4].values[0][Action.LOW] == -1.0
    assert table[7] is cell


def test_epsilon_and_the_step_size_fall_to_their_floors() -> None:
    learning = Learning()
    epsilons = [learning.epsilon(n) for n in range(0, 400, 20)]
    assert epsilons[:2] == [learning.explore, learning.explore / 2]
    assert epsilons == sorted(epsilons, reverse=True)
    assert epsilons[-1] == learning.explore_least
    assert [learning.step(1), learning.step(10**6)] == [1.0, learning.step_least]


def test_bids_lie_in_the_offered_range() -> None:
    assert Action.ABSTAIN.bid(10, 8) is None
    assert [action.bid(10, 8) for action in list(Action)[1:]] == [Bid(2, 4), Bid(5, 8), Bid(10, 8)]
    assert all(action.bid(1, 1) == Bid(1, 1) for action in list(Action)[1:])


def test_a_table_that_was_learnt_can_be_given_to_a_new_agent(tmp_path: Path) -> None:
    taught = agent()
    live(taught, {a: 2.0 * a.effort for a in Action})
    path = tmp_path / "table.json"
    path.write_bytes(to_json(taught.table.to_data()))
    assert read_table(path).to_data() == taught.table.to_data()


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        ({"version": 2}, ("version", "1", "2")),
        ({"shape": [4, 3, 3, 3, 3, 4]}, ("[4, 3, 3, 3, 3, 4]", "[5, 3, 3, 3, 3, 4]")),
        ({"cells": {"9999": [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]}}, ("out of range",)),
        ({"cells": {"1": [[0, 0, 0], [0, 0, 0], [0, 0, 0]]}}, ("malformed cell",)),
        ({"cells": {"1": [["x", 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]}}, ("malformed cell",)),
        ({"cells": {"1": [[0, 0, 0, 0], [0, 0, 0, 0], [0, -1, 0, 0]]}}, ("visits",)),
        ({"learning": {"discount": "a lot"}}, ("out of range",)),
        ({"learning": {"unknown": 1}}, ("malformed Q-table",)),
    ],
)
def test_another_table_is_refused(tmp_path: Path, change: dict[str, object], facts: tuple[str, ...]) -> None:
    path = tmp_path / "table.json"
    path.write_bytes(to_json(agent().table.to_data() | change))
    with pytest.raises(UsageError) as refused:
        read_table(path)
    assert all(fact in str(refused.value) for fact in (str(path), *facts)), refused.value


def test_what_was_learnt_is_shown_as_a_table_and_in_words() -> None:
    player = agent(explore=0.3)
    live(player, {a: 3.0 * a.effort for a in Action})
    header, *rows = policy_table(player.table)
    assert header == ("gain", "cost low", "cost fair", "cost high")
    assert [row[0] for row in rows] == list(CLASSES["gain"])
    assert any(cell != "-" for row in rows for cell in row[1:])
    sentences = list(explain(player.table))
    assert sentences
    assert all(sentence.endswith("rounds).") and "fair price" in sentence for sentence in sentences)


def test_there_is_hope_in_the_unknown_and_not_where_rounds_are_known_to_be_a_loss() -> None:
    table = QTable(Learning(optimism=1.0))

    def state(gain: int, cost: int) -> int:
        return state_of({"gain": gain, "cost": cost, "budget": 2, "phase": 0, "staleness": 0})

    unknown, nothing, loss, profit = range(4)
    for cost in range(3):
        assert table[state(unknown, cost)].best() is table[state(profit, cost)].best() is Action.FULL
        assert table[state(nothing, cost)].best() is table[state(loss, cost)].best() is Action.ABSTAIN
    assert table[state(nothing, 2)].mean(Action.FULL) < table[state(nothing, 1)].mean(Action.FULL) < 0
    assert table[state(nothing, 1)].mean(Action.FULL) < table[state(loss, 1)].mean(Action.FULL)
    table.learn(state(loss, 1), Action.LOW, 1.0, None, 0.7)
    assert table[state(loss, 1)].mean(Action.FULL) < 0, "what is learnt of one action leaves the others as they began"
