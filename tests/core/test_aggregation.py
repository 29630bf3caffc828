"""The four rules on arrays small enough to write the expected numbers out."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any
from weakref import WeakSet

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.adapter import AdapterState
from core.aggregation import RULES, Aggregate, FrozenA, Rule, Stack, Svd, WeightedUpdate, by_address, rank_of, weights
from core.canonical import Address
from core.errors import ConfigError
from core.lora import Layout, fresh

LAYOUT = Layout.of({"m": (16, 18), "n": (14, 15)}, 2)
FRESH = fresh(LAYOUT, b"test")
ADDRESSES = [Address(f"0x{i:040x}") for i in (0xB, 0xA, 0xF, 0x1)]


def state(**arrays: Any) -> AdapterState:
    return AdapterState({f"m.lora_{name}": np.array(values, np.float32) for name, values in arrays.items()})


def random_updates(rule: Rule, current: AdapterState, count: int = 4, seed: int = 0) -> list[WeightedUpdate]:
    source = np.random.default_rng(seed)
    share = weights({address: i + 1 for i, address in enumerate(ADDRESSES[:count])}, 1.0)
    shapes = rule.shapes(current, FRESH)
    return [
        WeightedUpdate(
            a, p, AdapterState({name: source.normal(size=shape).astype(np.float32) for name, shape in shapes.items()})
        )
        for a, p in share.items()
    ]


def lane_state(rule: Rule) -> AdapterState:
    """A state one round after the initial one."""
    initial = rule.initial(FRESH)
    return rule.aggregate(initial, random_updates(rule, initial, 2, seed=9)).state


def product(adapter: AdapterState, module: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    b, a = (adapter[f"{module}.lora_{which}"].astype(np.float64) for which in "BA")
    return b @ a


# --- expected numbers ----------------------------------------------------------------------------------------------


def test_frozen_a_adds_the_weighted_sum_of_updates() -> None:
    current = state(B=[[1.0], [2.0]])
    updates = [
        WeightedUpdate(ADDRESSES[0], 0.25, state(B=[[4.0], [-8.0]])),
        WeightedUpdate(ADDRESSES[1], 0.75, state(B=[[8.0], [0.0]])),
    ]
    got = RULES["frozen-a"].aggregate(current, updates)
    assert got == Aggregate(state(B=[[8.0], [0.0]]), 0.0)


def test_fedavg_averages_each_factor_apart() -> None:
    current = state(A=[[1.0, 1.0]], B=[[0.0]])
    updates = [
        WeightedUpdate(ADDRESSES[0], 0.5, state(A=[[2.0, 0.0]], B=[[2.0]])),
        WeightedUpdate(ADDRESSES[1], 0.5, state(A=[[0.0, 4.0]], B=[[6.0]])),
    ]
    assert RULES["fedavg"].aggregate(current, updates) == Aggregate(state(A=[[2.0, 3.0]], B=[[4.0]]), 0.0)


def test_stack_puts_every_block_behind_the_others_in_order_of_address() -> None:
    current = state(A=[[1.0, 0.0, 0.0]], B=[[1.0], [1.0], [1.0]])
    updates = [
        WeightedUpdate(ADDRESSES[0], 0.25, state(A=[[0.0, 2.0, 0.0]], B=[[4.0], [0.0], [0.0]])),
        WeightedUpdate(ADDRESSES[1], 0.75, state(A=[[0.0, 0.0, 3.0]], B=[[0.0], [4.0], [0.0]])),
    ]
    expected = state(
        A=[[1.0, 0.0, 0.0], [0.0, 0.0, 3.0], [0.0, 2.0, 0.0]],
        B=[[1.0, 0.0, 1.0], [1.0, 3.0, 0.0], [1.0, 0.0, 0.0]],
    )
    assert RULES["stack"].aggregate(current, updates) == Aggregate(expected, 0.0)


def test_svd_keeps_the_largest_part_of_the_product_and_says_what_it_lost() -> None:
    # The exact product is diag(4, 3): rank one keeps 4 and loses 3 of a norm of 5.
    current = state(A=[[0.0, 0.0]], B=[[0.0], [0.0]])
    updates = [
        WeightedUpdate(ADDRESSES[0], 0.5, state(A=[[2.0, 0.0]], B=[[4.0], [0.0]])),
        WeightedUpdate(ADDRESSES[1], 0.5, state(A=[[0.0, 3.0]], B=[[0.0], [2.0]])),
    ]
    got = RULES["svd"].aggregate(current, updates)
    np.testing.assert_allclose(product(got.state, "m"), [[4.0, 0.0], [0.0, 0.0]], atol=1e-6)
    assert got.residual == pytest.approx(0.6)


def test_weights_are_shares_of_the_registered_examples_in_order_of_address() -> None:
    shares = weights({ADDRESSES[0]: 300, ADDRESSES[1]: 100}, 1.0)
    assert list(shares.items()) == [(ADDRESSES[1], 0.25), (ADDRESSES[0], 0.75)]


@pytest.mark.parametrize(
    ("server_rate", "expected"),
    [(1.0, [0.25, 0.75]), (1.2, [0.3, 0.9]), (2.0, [0.5, 1.0]), (4.0, [1.0, 1.0]), (100.0, [1.0, 1.0])],
)
def test_a_server_rate_multiplies_the_shares_and_no_update_counts_more_than_once(
    server_rate: float, expected: list[float]
) -> None:
    got = weights({ADDRESSES[0]: 300, ADDRESSES[1]: 100}, server_rate)
    assert list(got.values()) == pytest.approx(expected)


def test_svd_keeps_what_weights_that_do_not_add_up_to_one_leave_of_the_state() -> None:
    current = state(A=[[1.0, 0.0]], B=[[2.0], [0.0]])
    nothing = state(A=[[0.0, 0.0]], B=[[0.0], [0.0]])
    for weight in (0.25, 1.0, 3.0):
        got = RULES["svd"].aggregate(current, [WeightedUpdate(ADDRESSES[0], weight, nothing)]).state
        np.testing.assert_allclose(product(got, "m"), product(current, "m"), atol=1e-6)


def test_addresses_are_ordered_as_numbers_whatever_their_case() -> None:
    assert by_address(Address("0xaB")) == by_address(Address("0xAb")) < by_address(Address("0xAC"))


# --- what the rules promise ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@given(order=st.permutations(range(4)))
def test_order_of_arrival_does_not_change_the_digest(rule: Rule, order: list[int]) -> None:
    current = lane_state(rule)
    updates = random_updates(rule, current)
    arrived = rule.aggregate(current, iter([updates[i] for i in order]))
    assert arrived.state.digest == rule.aggregate(current, updates).state.digest


LITERAL = {
    "frozen-a": "0x551f303e556c14eec89b86b7f870d6060150d1fed11b4f91a4d5acb01da83131",
    "fedavg": "0x81d2570a804c4bd17a7a97c20b0edf6d0e7aae154457a57201fdbc9b95fa7874",
    "stack": "0xd1882308a20b01e367dfdf60954e718cca56e5c27051af00e93bf20d2fcc55ef",
}


@pytest.mark.parametrize("name", LITERAL)
def test_the_exact_rules_give_the_bits_written_down(name: str) -> None:
    rule = RULES[name]
    current = rule.initial(FRESH)
    integers = [
        WeightedUpdate(
            address,
            share,
            AdapterState(
                {n: _pattern(shape, i) for n, shape in rule.shapes(current, FRESH).items()},
            ),
        )
        for i, (address, share) in enumerate(weights(dict(zip(ADDRESSES, (1, 2, 3, 5), strict=True)), 1.0).items())
    ]
    assert rule.aggregate(current, integers).state.digest == LITERAL[name]


def _pattern(shape: tuple[int, ...], offset: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    count = int(np.prod(shape))
    return ((np.arange(count, dtype=np.float32) * 37 + offset * 11) % 101 / 7).reshape(shape).astype(np.float32)


def test_the_sum_of_frozen_a_is_rounded_once() -> None:
    # Rational arithmetic: float64 terms may round by 2^-53, the one rounding to float32 dominates by far.
    rule = RULES["frozen-a"]
    current = lane_state(rule)
    updates = random_updates(rule, current)
    got = rule.aggregate(current, updates).state
    for name in current:
        exact = [Fraction(float(v)) for v in current[name].flat]
        for update in updates:
            exact = [
                e + Fraction(update.weight) * Fraction(float(v))
                for e, v in zip(exact, update.state[name].flat, strict=True)
            ]
        np.testing.assert_array_equal(got[name].ravel(), np.array([float(e) for e in exact]).astype(np.float32))


@pytest.mark.parametrize("name", ["frozen-a", "stack"])
def test_the_exact_rules_equal_the_dense_average_of_products(name: str) -> None:
    rule = RULES[name]
    current = lane_state(rule)
    updates = random_updates(rule, current)
    before, after = rule.adapter(current, FRESH), rule.adapter(rule.aggregate(current, updates).state, FRESH)
    for module in ("m", "n"):
        dense = product(before, module)
        for update in updates:
            block = FRESH.arrays | update.state.arrays
            dense = dense + update.weight * product(AdapterState(block), module)
        np.testing.assert_allclose(product(after, module), dense, atol=1e-5)


def test_fedavg_is_off_by_the_covariance_of_the_factors() -> None:
    rule = RULES["fedavg"]
    current = lane_state(rule)
    updates = random_updates(rule, current)
    after = rule.aggregate(current, updates).state
    a = [current["m.lora_A"].astype(np.float64) + u.state["m.lora_A"] for u in updates]
    b = [current["m.lora_B"].astype(np.float64) + u.state["m.lora_B"] for u in updates]
    p = [u.weight for u in updates]
    mean_a, mean_b = (sum(w * x for w, x in zip(p, xs, strict=True)) for xs in (a, b))
    dense = sum(w * y @ x for w, x, y in zip(p, a, b, strict=True))
    spread = sum(w * (y - mean_b) @ (x - mean_a) for w, x, y in zip(p, a, b, strict=True))
    np.testing.assert_allclose(dense - product(after, "m"), spread, atol=1e-5)


def test_svd_reports_the_error_that_an_auditor_finds() -> None:
    rule = Svd()
    current = lane_state(rule)
    updates = random_updates(rule, current)
    got = rule.aggregate(current, updates)
    assert 0.1 < got.residual < 1
    assert rule.error(current, updates, got.state) == pytest.approx(got.residual, rel=1e-5)


def test_svd_is_the_best_of_its_rank() -> None:
    # Eckart–Young: the error of a dense SVD cut at rank r is the least there is.
    rule = Svd()
    current = lane_state(rule)
    updates = random_updates(rule, current)
    lost = total = 0.0
    for module in ("m", "n"):
        dense = _dense(current, updates, module)
        values = np.linalg.svd(dense, compute_uv=False)
        lost += float(np.sum(values[2:] ** 2))
        total += float(np.sum(values**2))
    assert rule.aggregate(current, updates).residual == pytest.approx(np.sqrt(lost / total), rel=1e-9)


def test_an_auditor_sees_an_svd_aggregate_that_was_tampered_with() -> None:
    rule = Svd()
    current = lane_state(rule)
    updates = random_updates(rule, current)
    got = rule.aggregate(current, updates)
    forged = AdapterState({n: a * np.float32(1.05) for n, a in got.state.arrays.items()})
    assert rule.error(current, updates, forged) > got.residual + 0.001


def test_svd_of_nothing_loses_nothing() -> None:
    rule = Svd()
    nothing = AdapterState({name: np.zeros_like(array) for name, array in FRESH.arrays.items()})
    got = rule.aggregate(nothing, [WeightedUpdate(ADDRESSES[0], 1.0, nothing)])
    assert got.residual == 0.0
    assert not product(got.state, "m").any()


def _dense(current: AdapterState, updates: Sequence[WeightedUpdate], module: str) -> np.ndarray[Any, Any]:
    b, a = (current[f"{module}.lora_{which}"].astype(np.float64) for which in "BA")
    return sum(u.weight * (b + u.state[f"{module}.lora_B"]) @ (a + u.state[f"{module}.lora_A"]) for u in updates)


def test_the_rank_of_a_stack_grows_until_the_smaller_side_of_a_layer() -> None:
    rule = Stack()
    current = rule.initial(FRESH)
    assert rank_of(current) == 0
    for expected in range(2, 15, 2):
        current = rule.aggregate(current, random_updates(rule, current, 1)).state
        assert rank_of(current) == expected
    with pytest.raises(ConfigError, match=r"stack: n\.lora_A got rank 16, at most 14 fits its layer"):
        rule.aggregate(current, random_updates(rule, current, 1))


# --- from a state to a model and back ------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_fresh_adapter_changes_nothing(rule: Rule) -> None:
    adapter = rule.adapter(rule.initial(FRESH), FRESH)
    assert not product(adapter, "m").any()


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_what_is_trained_comes_back_from_its_update(rule: Rule) -> None:
    """One organisation of weight one: its trained adapter is the next state."""
    current = lane_state(rule)
    start = rule.start(current, FRESH)
    trained = AdapterState(
        {n: a + np.float32(0.5) if _trained(rule, current, n) else a for n, a in start.arrays.items()}
    )
    if rule.name == "stack":
        trained = AdapterState({n: _only_last(n, trained[n], start[n]) for n in start})
    update = rule.update(current, trained)
    assert update.shapes == rule.shapes(current, FRESH)
    after = rule.adapter(rule.aggregate(current, [WeightedUpdate(ADDRESSES[0], 1.0, update)]).state, FRESH)
    for module in ("m", "n"):
        if rule.name != "svd":
            np.testing.assert_allclose(product(after, module), product(trained, module), atol=1e-5)


def _trained(rule: Rule, current: AdapterState, name: str) -> bool:
    return name in current and (rule.trains_a or name.endswith("lora_B"))


def _only_last(name: str, trained: Any, start: Any) -> Any:
    out = start.copy()
    tail = (slice(-2, None), slice(None)) if name.endswith("lora_A") else (slice(None), slice(-2, None))
    out[tail] = trained[tail]
    return out


def test_frozen_a_sends_half_as_much() -> None:
    sent = {rule.name: rule.shapes(rule.initial(FRESH), FRESH) for rule in RULES.values()}
    assert all(name.endswith("lora_B") for name in sent["frozen-a"])
    assert set(sent["fedavg"]) == set(FRESH)


def test_isolated_lanes_of_frozen_a_add_up() -> None:
    lanes = [(0.25, state(B=[[4.0], [8.0]])), (0.75, state(B=[[-4.0], [0.0]]))]
    assert FrozenA().compose(lanes) == state(B=[[-2.0], [2.0]])


@pytest.mark.parametrize("name", ["fedavg", "stack", "svd"])
def test_other_rules_cannot_be_summed_over_lanes(name: str) -> None:
    with pytest.raises(ConfigError, match=f"lane-size needs aggregation frozen-a, got {name}"):
        RULES[name].compose([])


@pytest.mark.parametrize("name", RULES)
def test_updates_may_be_read_when_they_are_needed(name: str) -> None:
    rule = RULES[name]
    current = lane_state(rule)
    updates = random_updates(rule, current)
    stored = [replace(u, source=partial(AdapterState.from_bytes, u.state.to_bytes())) for u in updates]
    assert rule.aggregate(current, stored).state == rule.aggregate(current, updates).state


@pytest.mark.parametrize("name", ["frozen-a", "fedavg"])
def test_one_update_is_in_memory_at_a_time(name: str) -> None:
    """What is read of an update is dropped before the next is read."""
    rule, alive = RULES[name], WeakSet[AdapterState]()
    current = lane_state(rule)

    def read(data: bytes) -> AdapterState:
        assert not alive
        state = AdapterState.from_bytes(data)
        alive.add(state)
        return state

    updates = [replace(u, source=partial(read, u.state.to_bytes())) for u in random_updates(rule, current)]
    rule.aggregate(current, updates)
    assert not alive


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.name)
def test_an_update_and_its_parent_give_back_what_was_trained(rule: Rule) -> None:
    current = lane_state(rule)
    update = random_updates(rule, current, 1)[0].state
    assert rule.update(current, rule.trained(current, update)).shapes == update.shapes
    again = rule.update(current, rule.trained(current, update))
    assert max(float(np.abs(again[name] - update[name]).max()) for name in update) < 1e-5
