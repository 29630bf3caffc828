"""Model selection: a best round, a served round and an early end follow from recorded losses alone."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from core.errors import IntegrityError
from core.genesis import Genesis
from core.model_selection import best_of, check_best, completes, served_line, served_round, stops
from core.rounds import Best, RoundRecord
from tests import federation as f


def genesis(serve: str = "best", patience: int = 0, rounds: int = 9) -> Genesis:
    plain = f.genesis()
    return replace(plain, serve=serve, patience=patience, training=replace(plain.training, rounds=rounds))


def line(losses: Sequence[float | None]) -> list[RoundRecord]:
    """Rounds after which the lane's state has these losses."""
    found, before = list[RoundRecord](), None
    for number, loss in enumerate(losses, 1):
        aggregate = f.other(f"state {number}")
        record = f.record(f.genesis(), round=number, aggregate=aggregate, validation_loss=loss)
        before = best_of(record, before)
        found.append(replace(record, best=before))
    return found


@pytest.mark.parametrize(
    ("losses", "best"),
    [([3.0], 1), ([3.0, 2.0, 4.0], 2), ([3.0, 2.0, 2.0], 2), ([3.0, 3.0, 3.0], 1), ([3.0, 2.0, 1.0], 3)],
)
def test_the_best_round_has_the_lowest_loss_and_of_equals_is_the_first(losses: list[float], best: int) -> None:
    rounds = line(losses)
    assert served_round(genesis("best"), rounds[-1]) == (best, rounds[best - 1].aggregate, rounds[best - 1].aggregate)
    assert served_line(genesis("best"), rounds) == rounds[:best]
    assert served_round(genesis("last", patience=1), rounds[-1]) == (
        len(losses),
        rounds[-1].aggregate,
        rounds[-1].aggregate,
    )
    assert served_line(genesis("last", patience=1), rounds) == rounds


def test_nothing_is_served_of_no_rounds() -> None:
    assert served_line(genesis(), []) == []


def test_a_record_without_a_loss_names_no_best_round() -> None:
    assert best_of(line([None])[0], Best(1, f.other("state"), 2.0)) is None


def test_the_best_round_is_sent_as_its_record_says() -> None:
    (record,) = line([2.0])
    rounded = replace(record, rounded=f.other("rounded"))
    found = replace(rounded, best=best_of(rounded, None))
    assert found.best == Best(1, record.aggregate, 2.0, f.other("rounded"))
    assert served_round(genesis("best"), found).sent == found.best.sent == rounded.sent == f.other("rounded")
    assert served_round(genesis("last"), found).sent == f.other("rounded")
    assert served_round(genesis("last"), record).sent == record.aggregate


@pytest.mark.parametrize(
    ("losses", "patience", "stopped"),
    [
        ([3.0, 2.0, 4.0], 0, False),
        ([3.0, 2.0, 4.0], 2, False),
        ([3.0, 2.0, 4.0, 2.0], 2, True),
        ([3.0, 2.0, 4.0, 1.9], 2, False),
        ([3.0, 3.0], 1, True),
    ],
)
def test_training_ends_after_rounds_without_a_better_one(losses: list[float], patience: int, stopped: bool) -> None:
    head = line(losses)[-1]
    assert stops(genesis("last", patience), head.round, head.best) == stopped
    assert completes(genesis("last", patience), head, 9) == stopped


def test_neither_the_last_round_nor_a_calibration_ends_early() -> None:
    best = Best(1, f.other("state"), 2.0)
    assert not stops(genesis("best", 1, rounds=3), 3, best)
    assert not stops(genesis("best", 1, rounds=3), 4, best)
    assert stops(genesis("best", 1, rounds=3), 2, best)
    assert completes(genesis("best", 1, rounds=3), line([2.0, 1.0, 3.0])[-1], 3)


def test_a_line_whose_best_round_does_not_follow_is_refused() -> None:
    rounds = line([3.0, 2.0, 4.0])
    check_best(genesis(), rounds)
    lying = replace(rounds[2], best=Best(3, rounds[2].aggregate, 4.0))
    with pytest.raises(IntegrityError, match="round 3: expected best round"):
        check_best(genesis(), [*rounds[:2], lying])
    with pytest.raises(IntegrityError, match="round 1: expected best round"):
        check_best(genesis(), line([None]))
    with pytest.raises(IntegrityError, match="round 1: expected best round"):
        check_best(genesis("last"), rounds)
    check_best(genesis("last"), line([None, None]))
