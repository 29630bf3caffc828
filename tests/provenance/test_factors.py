"""The factors of contributions under each rule, on a module of two inputs, two outputs and rank one."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from core.adapter import AdapterState
from core.aggregation import RULES, WeightedUpdate
from provenance.factors import TERMS, at_modules, bytes_each, client_terms
from provenance.history import History, StoredRound
from tests.provenance.conftest import organisation

ANN, BOB = organisation(0), organisation(1)
A, B = "m.lora_A", "m.lora_B"


def state(a: Sequence[float] | None, b: Sequence[float] | None) -> AdapterState:
    """A (1, 2) and B (2, 1) of the module, from their entries."""
    arrays: dict[str, Any] = {}
    if a is not None:
        arrays[A] = np.array(a, np.float32).reshape(-1, 2)
    if b is not None:
        arrays[B] = np.array(b, np.float32).reshape(2, -1)
    return AdapterState(arrays)


def update(who: Any, weight: float, a: Sequence[float] | None, b: Sequence[float] | None) -> WeightedUpdate:
    return WeightedUpdate(who, weight, state(a, b))


def done(before: AdapterState, after: AdapterState, *updates: WeightedUpdate) -> StoredRound:
    return StoredRound(lambda: before, lambda: after, updates)


def history(rule: str, *rounds: StoredRound) -> History:
    return History(RULES[rule], state([1, 2], [0, 0]), (rounds,))


def terms(found: History) -> list[tuple[list[Any], list[Any]]]:
    """Left (K or 1, out, r) and right (K or 1, r, in) of each term."""
    made = TERMS[found.rule.name](found, (ANN, BOB), ("m",))["m"]
    return [(left.tolist(), right.tolist()) for left, right in made]


def test_frozen_a_sums_weighted_b_and_shares_a() -> None:
    nothing = state(None, [0, 0])
    first = done(nothing, nothing, update(ANN, 0.25, None, [4, 8]), update(BOB, 0.75, None, [4, 0]))
    second = done(nothing, nothing, update(BOB, 1.0, None, [0, 5]))
    assert terms(history("frozen-a", first, second)) == [([[[1], [2]], [[3], [5]]], [[[1, 2]]])]


def test_fedavg_divides_the_product_into_two_terms() -> None:
    """A goes from (1, 2) to (3, 2), B from 0 to (2, 4): ½ D^B (4, 4) and ½ (2, 4) D^A."""
    last = state([3, 2], [2, 4])
    first = done(last, last, update(ANN, 0.5, [4, 0], [4, 0]), update(BOB, 0.5, [0, 0], [0, 8]))
    assert terms(history("fedavg", first)) == [
        ([[[2], [0]], [[0], [4]]], [[[2, 2]]]),
        ([[[1], [2]]], [[[2, 0]], [[0, 0]]]),
    ]


def test_stack_has_a_block_a_round_padded_to_the_longest() -> None:
    whole = state([0, 0], [0, 0])
    first = done(whole, whole, update(ANN, 0.5, [1, 0], [2, 4]), update(BOB, 0.5, [0, 1], [6, 8]))
    second = done(whole, whole, update(BOB, 1.0, [5, 5], [7, 7]))
    assert terms(history("stack", first, second)) == [
        ([[[1, 0], [2, 0]], [[3, 7], [4, 7]]], [[[1, 0], [0, 0]], [[0, 1], [5, 5]]])
    ]


def test_svd_has_the_change_of_the_product() -> None:
    """p [δB A + (B + δB) δA], with A = (1, 2) and B = (1, 1) before the round."""
    before = state([1, 2], [1, 1])
    first = done(before, before, update(ANN, 0.5, [1, 0], [1, 3]), update(BOB, 1.0, [0, 0], [0, 0]))
    assert terms(history("svd", first)) == [
        ([[[0.5, 1], [1.5, 2]], [[0, 1], [0, 1]]], [[[1, 2], [1, 0]], [[1, 2], [0, 0]]])
    ]


def test_clients_are_what_they_trained_in_the_last_round_unweighted() -> None:
    before = state(None, [1, 1])
    first = done(before, before, update(ANN, 0.25, None, [9, 9]), update(BOB, 0.75, None, [9, 9]))
    second = done(before, before, update(ANN, 0.25, None, [2, 4]), update(BOB, 0.75, None, [0, 1]))
    ((left, right),) = client_terms(history("frozen-a", first, second), (ANN, BOB), ("m",))["m"]
    assert left.tolist() == [[[3], [5]], [[1], [2]]]
    assert right.tolist() == [[[1, 2]]]


def test_a_client_of_several_shards_is_the_mean_of_theirs() -> None:
    before = state(None, [0, 0])
    lanes = tuple((done(before, before, update(ANN, 1.0, None, b)),) for b in ([2, 4], [4, 0]))
    ((left, _),) = client_terms(History(RULES["frozen-a"], state([1, 2], [0, 0]), lanes), (ANN,), ("m",))["m"]
    assert left.tolist() == [[[3], [2]]]


@pytest.mark.parametrize(
    ("rule", "expected"), [("frozen-a", 8), ("fedavg", 16), ("stack", 2 * 16), ("svd", 2 * 2 * 16)]
)
def test_bytes_of_an_organisation(rule: str, expected: int) -> None:
    nothing = state([0, 0], [0, 0])
    one = done(nothing, nothing, update(ANN, 1.0, [0, 0], [0, 0]))
    assert bytes_each(history(rule, one, one), ("m",)) == expected


def test_only_the_arrays_of_the_modules_are_read() -> None:
    whole = AdapterState({"m.lora_A": np.zeros((1, 2), np.float32), "n.lora_A": np.ones((1, 2), np.float32)})
    assert list(at_modules(whole, ("n",))) == ["n.lora_A"]
