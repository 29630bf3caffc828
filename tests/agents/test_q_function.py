"""The Q-function: what is known of a round before any, what one teaches, and which saved ones are refused."""

from dataclasses import asdict

import pytest

from agents.q_function import Action, Learning, QFunction, explain, policy_table
from core.errors import FormatError
from core.update import Bid
from tests.agents.lives import agent, live


def best(values: QFunction, price: float) -> Action:
    """The best action where a full round costs this many equal shares."""
    return max(Action, key=lambda action: (values.value(action, price * action.effort), -action))


def test_before_the_first_round_an_equal_share_is_expected_and_the_price_decides() -> None:
    values = QFunction.untaught(Learning())
    assert values.value(Action.ABSTAIN, 0.0) == 0.0
    assert values.value(Action.FULL, 0.4) == pytest.approx(0.6)
    assert [best(values, price) for price in (0.3, 0.8, 2.0)] == [Action.FULL, Action.MEDIUM, Action.ABSTAIN]


def test_one_round_tells_of_every_effort_and_of_what_a_higher_price_would_do() -> None:
    values = QFunction.untaught(Learning(discount=0.0))
    before = [values.value(action, 0.0) for action in Action]
    values.learn(Action.FULL, 3.0, 0.0)
    assert values.value(Action.FULL, 0.0) == pytest.approx(3.0), "the first round counts in full"
    assert all(values.value(action, 0.0) > then for action, then in zip(Action, before, strict=True))
    assert best(values, 1.0) is Action.FULL
    poor = QFunction.untaught(Learning(discount=0.0))
    poor.learn(Action.FULL, 0.0, 0.0)
    assert best(poor, 0.9) is Action.ABSTAIN


def test_a_target_is_the_income_and_the_discounted_value_of_what_comes_after() -> None:
    values = QFunction.untaught(Learning(discount=0.5))
    values.learn(Action.FULL, 1.0, 4.0)
    assert values.value(Action.FULL, 0.0) == pytest.approx(1.0 + 0.5 * 4.0)


def test_abstaining_teaches_nothing_of_the_gain() -> None:
    values = QFunction.untaught(Learning())
    for _ in range(10):
        values.learn(Action.ABSTAIN, 0.0, 0.5)
    assert values.weights[1] == Learning().first_gain
    assert values.weights[0] > 0


def test_the_gain_of_a_steady_income_is_found_in_ten_rounds() -> None:
    """A Q-function that stands still is a fixed point: Q(full) = income − cost + γ max Q."""
    values = QFunction.untaught(Learning())
    for number in range(10):
        action = (Action.FULL, Action.MEDIUM)[number % 2]
        after = max(values.value(a, 0.5 * a.effort) for a in Action)
        values.learn(action, 2.0 * action.effort**0.7, after)
    gain = values.value(Action.FULL, 0.0) - values.value(Action.ABSTAIN, 0.0)
    assert gain == pytest.approx(2.0, rel=0.2)


def test_the_step_size_falls_to_its_floor() -> None:
    learning = Learning()
    steps = [learning.step(n) for n in range(1, 200)]
    assert steps[0] == learning.step(0) == 1.0
    assert steps == sorted(steps, reverse=True)
    assert steps[-1] == learning.step_least


def test_bids_lie_in_the_offered_range() -> None:
    assert Action.ABSTAIN.bid(10, 8) is None
    assert [action.bid(10, 8) for action in list(Action)[1:]] == [Bid(2, 4), Bid(5, 8), Bid(10, 8)]
    assert all(action.bid(1, 1) == Bid(1, 1) for action in list(Action)[1:])


def test_what_is_saved_is_what_is_read() -> None:
    taught = agent()
    live(taught, {a: 2.0 * a.effort for a in Action})
    assert QFunction.from_data(taught.values.to_data()) == taught.values


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"version": 1}, "expected version 2, got 1"),
        ({"weights": [1.0]}, "expected 2 weights"),
        ({"weights": [0.0, "x"]}, "not a number"),
        ({"weights": [0.0, float("inf")]}, "not a number"),
        ({"weights": None}, "malformed"),
        ({"visits": [0, -1, 0, 0]}, "visits"),
        ({"visits": [0, 0, 0]}, "4 counts"),
        ({"learning": asdict(Learning()) | {"discount": "a lot"}}, "learning: expected float or int as discount"),
        ({"learning": {"unknown": 1}}, "malformed learning: expected a field 'discount'"),
    ],
)
def test_another_function_is_refused(change: dict[str, object], fact: str) -> None:
    data = agent().values.to_data() | change
    with pytest.raises(FormatError, match=fact):
        QFunction.from_data(data)


def test_what_was_learnt_is_shown_as_a_table_and_in_words() -> None:
    player = agent()
    live(player, {a: 3.0 * a.effort for a in Action})
    header, *rows = policy_table(player.values)
    assert header == ("price of a full round [shares]", "bid", "expected payoff [shares]")
    assert [row[0] for row in rows] == ["0.25", "0.5", "1", "2"]
    assert rows[0][1] == "full"
    gain, *sentences = explain(player.values)
    assert gain.startswith("It expects ")
    assert gain.endswith(f"learnt from {sum(player.values.visits[1:])} rounds.")
    assert sentences[0] == "Where that costs 0.25 equal shares, it takes part in full."
