"""Robust admission, against Flower's own implementations and by what it promises."""

from dataclasses import replace

import numpy as np
import pytest
from flwr.app import ArrayRecord, RecordDict
from flwr.server.strategy.aggregate import aggregate_trimmed_avg
from flwr.serverapp.strategy.multikrum import select_multikrum

from core.adapter import AdapterState
from core.aggregation import RULES, WeightedUpdate
from core.canonical import Address
from core.robust import BOUNDS, Robust, counted, cut, factors, likenesses, shares, wrong

ADDRESSES = [Address(f"0x{index:040x}") for index in range(1, 12)]
SHAPES = {"a.lora_A": (2, 5), "a.lora_B": (7, 2), "b.lora_B": (3, 2)}


def state(seed: int, scale: float = 1.0) -> AdapterState:
    """A random state."""
    rng = np.random.default_rng(seed)
    return AdapterState({n: (scale * rng.standard_normal(s)).astype(np.float32) for n, s in SHAPES.items()})


def round_of(*states: AdapterState) -> list[WeightedUpdate]:
    """A round's updates, equally weighted."""
    return [WeightedUpdate(a, 0.5, s) for a, s in zip(ADDRESSES, states, strict=False)]


ALL = dict.fromkeys(ADDRESSES, 1.0)
"""Nothing is clipped."""


def flat(state: AdapterState) -> np.ndarray:
    """All numbers of a state."""
    return np.concatenate([array.ravel().astype(np.float64) for array in state.arrays.values()])


@pytest.mark.parametrize("admitted", [4, 7, 10])
def test_multi_krum_keeps_those_that_flower_s_keeps(admitted: int) -> None:
    states = [state(seed, 1.0 if seed % 3 else 4.0) for seed in range(admitted)]
    robust = Robust("multi-krum", 0.3)
    left_out = cut(robust, admitted)
    contents = [RecordDict({"arrays": ArrayRecord([flat(s)])}) for s in states]
    kept = select_multikrum(contents, left_out, admitted - left_out)
    chosen = [any(np.array_equal(k["arrays"].to_numpy_ndarrays()[0], flat(s)) for k in kept) for s in states]
    found = factors(robust, round_of(*states), ALL)
    assert [found[a] for a in ADDRESSES[:admitted]] == [float(c) for c in chosen]
    assert 0 < sum(chosen) < admitted


@pytest.mark.parametrize("admitted", [3, 5, 8])
def test_the_trimmed_mean_is_flower_s(admitted: int) -> None:
    states = [state(seed, 1 + seed) for seed in range(admitted)]
    robust, start = Robust("trimmed-mean", 0.3), state(99)
    left = counted(robust, round_of(*states), ALL, most=2.0)
    got = RULES["fedavg"].aggregate(start, left).state
    trimmed = aggregate_trimmed_avg([([flat(s)], 1) for s in states], cut(robust, admitted) / admitted + 1e-9)[0]
    expected = flat(start) + 0.5 * admitted * trimmed
    # Each side rounds sums of `admitted` float64 terms, and the state once to float32.
    np.testing.assert_allclose(flat(got), expected, rtol=2.0**-23, atol=2.0**-24)


def test_what_a_trimmed_mean_counts_adds_up_to_its_aggregate() -> None:
    states = [state(seed) for seed in range(5)]
    left = counted(Robust("trimmed-mean", 0.25), round_of(*states), ALL)
    parts = [update.weight * flat(update.state) for update in left]
    zero = AdapterState({name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()})
    np.testing.assert_allclose(flat(RULES["fedavg"].aggregate(zero, left).state), sum(parts), rtol=2.0**-23)
    # Every number counts in three of the five updates.
    assert (sum(flat(update.state) != 0 for update in left) == 3).all()


def test_no_number_of_a_trimmed_mean_weighs_more_than_one_update_may() -> None:
    """What is cut leaves its weight to the others: two of four would count twice as much as their cap."""
    updates, robust = round_of(*(state(seed) for seed in range(4))), Robust("trimmed-mean", 0.3)
    assert {u.weight for u in counted(robust, updates, ALL)} == {1.0}
    assert {u.weight for u in counted(robust, updates, ALL, most=0.25)} == {0.25}
    light = [replace(update, weight=0.2) for update in updates]
    assert {u.weight for u in counted(robust, light, ALL)} == {0.4}


def test_the_share_of_an_update_that_counts_is_a_part_of_its_norm() -> None:
    updates, robust = round_of(*(state(seed) for seed in range(4)), state(9, 50.0)), Robust("trimmed-mean", 0.3)
    norms = {update.organisation: update.state.norm for update in updates}
    found = shares(robust, updates, ALL, norms)
    left = {update.organisation: update.state.norm for update in counted(robust, updates, ALL)}
    assert found == {a: left[a] / norm for a, norm in norms.items()}
    assert found[updates[4].organisation] < 0.2 < min(found[update.organisation] for update in updates[:4])
    assert shares(Robust("clip", 1.5), updates, dict.fromkeys(norms, 0.4), norms) == dict.fromkeys(norms, 0.4)
    nothing = dict.fromkeys(norms, 0.0)
    assert set(shares(robust, updates, ALL, nothing).values()) == {1.0}


def test_clip_counts_what_clipping_leaves() -> None:
    updates, clip = round_of(state(1), state(2)), {ADDRESSES[0]: 1.0, ADDRESSES[1]: 0.3}
    found = factors(Robust("clip", 1.5), updates, clip)
    assert found == clip
    assert [update.weight for update in counted(Robust("clip", 1.5), updates, found)] == [0.5, 0.15]


def test_validation_leaves_out_what_harms_and_clips_the_others() -> None:
    updates, robust = round_of(state(1), state(2), state(3)), Robust("validation", 0.05)
    clip = dict(zip(ADDRESSES, (1.0, 0.4, 1.0), strict=False))
    harms = dict(zip(ADDRESSES, (-0.3, 0.04, 0.2), strict=False))
    assert factors(robust, updates, clip, harms) == dict(zip(ADDRESSES, (1.0, 0.4, 0.0), strict=False))
    assert factors(robust, updates, clip) == clip


@pytest.mark.parametrize("rule", [rule for rule in BOUNDS if rule != "validation"])
def test_factors_that_were_made_are_right_and_changed_ones_are_not(rule: str) -> None:
    updates = round_of(state(1), state(2), state(3), state(4, 9.0))
    robust = Robust(rule, BOUNDS[rule])
    clip = dict(zip(ADDRESSES, (1.0, 1.0, 1.0, 0.25 if robust.clips else 1.0), strict=False))
    made = factors(robust, updates, clip)
    assert wrong(robust, updates, made, clip) == {}
    for organisation in made:
        assert wrong(robust, updates, made | {organisation: 0.5}, clip).get(organisation) == made[organisation]
        swapped = made | {organisation: 1.0 - made[organisation]}
        assert organisation in wrong(robust, updates, swapped, clip)


def test_a_factor_of_validation_is_measured_again_within_what_machines_differ() -> None:
    updates, robust = round_of(state(1), state(2)), Robust("validation", 0.05)
    recorded = {ADDRESSES[0]: 1.0, ADDRESSES[1]: 0.0}

    def measured(first: float, second: float) -> dict[Address, float]:
        return wrong(robust, updates, recorded, ALL, {ADDRESSES[0]: first, ADDRESSES[1]: second})

    assert measured(0.0, 0.2) == {}
    assert measured(0.055, 0.045) == {}
    assert measured(0.07, 0.2) == {ADDRESSES[0]: 0.0}
    assert measured(0.0, 0.03) == {ADDRESSES[1]: 1.0}
    assert wrong(robust, updates, recorded, ALL) == {}
    assert wrong(robust, updates, recorded | {ADDRESSES[0]: 0.5}, ALL) == {ADDRESSES[0]: 1.0}


def test_an_update_stands_by_its_norm_and_its_cosine_to_the_others() -> None:
    states = [state(1), state(2), AdapterState({n: -2 * state(1)[n] for n in SHAPES})]
    found = likenesses(round_of(*states))
    for own, address in zip(states, ADDRESSES, strict=False):
        others = sum(flat(other) for other in states if other is not own)
        cosine = flat(own) @ others / np.linalg.norm(flat(own)) / np.linalg.norm(others)
        assert found[address].norm == pytest.approx(np.linalg.norm(flat(own)), rel=1e-12)
        assert found[address].cosine == pytest.approx(cosine, abs=1e-12)
    assert likenesses(round_of(state(1)))[ADDRESSES[0]].cosine == 0.0


@pytest.mark.parametrize(
    ("robust", "faulty"),
    [
        (Robust("none", 0.0), False),
        (Robust("none", 0.1), True),
        (Robust("clip", 0.0), True),
        (Robust("clip", 1.5), False),
        (Robust("multi-krum", 0.5), True),
        (Robust("trimmed-mean", 0.49), False),
        (Robust("validation", -0.1), True),
        (Robust("validation", 0.0), True),
    ],
)
def test_bounds_that_a_rule_cannot_have_are_refused(robust: Robust, faulty: bool) -> None:
    assert (robust.fault() is not None) == faulty
