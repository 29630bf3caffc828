"""An organisation's agent: what it learns, what it spends, what it saves."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from agents.q_learning import (
    CLASSES,
    STATES,
    Action,
    Agent,
    Learning,
    Notebook,
    Prices,
    QTable,
    Terms,
    explain,
    parts_of,
    policy_table,
    read_table,
    state_of,
)
from core.canonical import to_json
from core.errors import ConfigError, FormatError, UsageError
from core.update import Bid

TERMS = Terms(pool=8.0, members=8, rounds=40, steps=10, traffic=1.0, budget=1000.0)
PRICES = Prices(step=0.04, traffic=0.1)


def agent(seed: int = 1, terms: Terms = TERMS, **learning: float) -> Agent:
    return Agent(terms, seed, QTable(Learning(**learning)))


def live(
    player: Agent, pays: dict[Action, float], first: int = 1, last: int = 40, prices: Prices = PRICES
) -> list[Action]:
    """Rounds in which income follows from the action alone; each is paid when the one after next is decided."""
    chosen = []
    for number in range(first, last + 1):
        if number > 2:
            done = player.decision(number - 2)
            player.settle(number - 2, pays[done.action] if done and done.cost else 0.0)
        chosen.append(player.decide(number, prices))
        player.perform(number, prices)
    return chosen


def test_there_are_fewer_than_500_states_each_with_a_number_of_its_own() -> None:
    assert STATES < 500
    assert [state_of(parts_of(state)) for state in range(STATES)] == list(range(STATES))
    assert parts_of(0) == dict.fromkeys(CLASSES, 0)


def test_an_agent_learns_to_take_part_where_it_pays_and_to_stay_away_where_it_does_not() -> None:
    paying, losing = {a: 3.0 * a.effort for a in Action}, dict.fromkeys(Action, 0.0)
    for seed in range(5):
        good, bad = agent(seed), agent(seed)
        table = good.table, bad.table
        for _ in range(5):  # the same organisation in five runs
            good, bad = agent(seed), agent(seed)
            good.table, bad.table = table
            earned, lost = live(good, paying), live(bad, losing)
        assert earned.count(Action.FULL) > 25
        assert lost.count(Action.ABSTAIN) > 25


def test_a_round_is_learnt_from_once_its_income_and_the_next_decision_are_known() -> None:
    player = agent(explore=0.0)
    player.decide(1, PRICES)
    player.perform(1, PRICES)
    player.decide(2, PRICES)
    assert not player.table.cells
    player.settle(1, 2.0)
    (cell,) = player.table.cells.values()
    assert sum(cell.visits) == 1
    assert [d.round for d in player.waiting] == [2]


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


def test_what_was_never_tried_looks_better_than_abstaining() -> None:
    assert agent(explore=0.0).decide(1, PRICES) is not Action.ABSTAIN


def test_epsilon_and_the_step_size_fall_to_their_floors() -> None:
    learning = Learning()
    epsilons = [learning.epsilon(n) for n in range(0, 400, 20)]
    assert epsilons[:2] == [learning.explore, learning.explore / 2]
    assert epsilons == sorted(epsilons, reverse=True)
    assert epsilons[-1] == learning.explore_least
    assert [learning.step(1), learning.step(10**6)] == [1.0, learning.step_least]


@pytest.mark.parametrize("budget", [0.0, 0.3, 1.7, 5.0])
def test_a_budget_is_never_overrun(budget: float) -> None:
    player = agent(3, replace(TERMS, budget=budget), explore=0.9)
    for number in range(1, 41):
        prices = Prices(0.04 * (1 + number % 5), 0.1)
        player.decide(number, prices)
        player.decide(number + 1, prices)  # two rounds are bid for before the first is trained
        player.perform(number, Prices(0.3, 0.1))  # and prices rise in between
        assert player.spent <= budget
        player.settle(number, 1.0)


def test_an_agent_that_cannot_pay_abstains() -> None:
    player = agent(terms=replace(TERMS, budget=0.0))
    assert player.decide(1, PRICES) is Action.ABSTAIN
    assert player.perform(1, PRICES) is None
    assert player.spent == 0.0


def test_asking_telling_and_performing_again_change_nothing() -> None:
    player = agent()
    action = player.decide(1, PRICES)
    player.perform(1, PRICES)
    player.settle(1, 2.0)
    before = player.to_bytes()
    assert player.decide(1, PRICES) is action
    player.perform(1, PRICES)
    player.settle(1, 7.0)
    assert player.to_bytes() == before


def test_a_round_that_is_over_is_not_decided_again() -> None:
    player = agent()
    player.decide(5, PRICES)
    with pytest.raises(UsageError, match="round 4 is over"):
        player.decide(4, PRICES)


def test_bids_lie_in_the_offered_range() -> None:
    assert Action.ABSTAIN.bid(10, 8) is None
    assert [action.bid(10, 8) for action in list(Action)[1:]] == [Bid(2, 4), Bid(5, 8), Bid(10, 8)]
    assert all(action.bid(1, 1) == Bid(1, 1) for action in list(Action)[1:])


def test_what_is_saved_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    pays = {a: 2.0 * a.effort for a in Action}
    whole = agent(5)
    expected = live(whole, pays)
    first = agent(5)
    notebook = Notebook(tmp_path)
    live(first, pays, 1, 20)
    notebook.save(0, 20, first)
    again = notebook.before(0, 21, TERMS)
    assert again is not None
    assert live(again, pays, 21) == expected[20:]
    assert again.to_bytes() == whole.to_bytes()


def test_a_round_that_is_repeated_starts_from_the_round_before_it(tmp_path: Path) -> None:
    notebook = Notebook(tmp_path)
    player = agent()
    for number in range(1, 4):
        player.decide(number, PRICES)
        notebook.save(0, number, player)
    found = notebook.before(0, 3, TERMS)
    assert found is not None
    assert found.decisions == 2
    assert notebook.before(0, 1, TERMS) is None
    newest = notebook.newest(TERMS)
    assert newest is not None
    assert newest.decisions == 3


def test_two_seeds_explore_differently_and_one_seed_alike() -> None:
    pays = dict.fromkeys(Action, 1.0)
    assert live(agent(1, explore=0.5), pays) == live(agent(1, explore=0.5), pays)
    assert live(agent(1, explore=0.5), pays) != live(agent(2, explore=0.5), pays)


def test_draws_are_spread_evenly() -> None:
    player = agent()
    drawn = [player._draw() for _ in range(4000)]
    assert all(0.0 <= value < 1.0 for value in drawn)
    counts = [sum(int(value * 10) == tenth for value in drawn) for tenth in range(10)]
    assert all(320 < count < 480 for count in counts)


def test_a_table_that_was_learnt_can_be_given_to_a_new_agent(tmp_path: Path) -> None:
    taught = agent()
    live(taught, {a: 2.0 * a.effort for a in Action})
    path = tmp_path / "table.json"
    path.write_bytes(to_json(taught.table.to_data()))
    assert read_table(path).to_data() == taught.table.to_data()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version 2, 1 wanted"),
        ({"shape": [4, 3, 3, 3, 3, 4]}, "shape .4, 3, 3, 3, 3, 4., .5, 3, 3, 3, 3, 4. wanted"),
        ({"cells": {"9999": [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]}}, "out of range"),
        ({"cells": {"1": [[0, 0, 0], [0, 0, 0], [0, 0, 0]]}}, "malformed cell"),
        ({"cells": {"1": [["x", 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]}}, "malformed cell"),
        ({"cells": {"1": [[0, 0, 0, 0], [0, 0, 0, 0], [0, -1, 0, 0]]}}, "visits"),
        ({"learning": {"discount": "a lot"}}, "out of range"),
        ({"learning": {"unknown": 1}}, "malformed Q-table"),
    ],
)
def test_another_table_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "table.json"
    path.write_bytes(to_json(agent().table.to_data() | change))
    with pytest.raises(UsageError, match=message):
        read_table(path)


def test_a_saved_agent_that_is_damaged_is_refused(tmp_path: Path) -> None:
    notebook = Notebook(tmp_path)
    notebook.save(0, 1, agent())
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FormatError):
        notebook.newest(TERMS)


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, "1"])
def test_amounts_that_are_none_are_refused(value: float) -> None:
    with pytest.raises(ConfigError, match="a number of at least 0 wanted"):
        Prices(value, 0.0)
    with pytest.raises(ConfigError, match="a number of at least 0 wanted"):
        replace(TERMS, budget=value)
    player = agent()
    player.decide(1, PRICES)
    with pytest.raises(ConfigError, match="a number of at least 0 wanted"):
        player.settle(1, value)


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
