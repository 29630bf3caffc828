"""Credit: the effect of a round on the loss, divided among the organisations that took part."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from agents.credit import MOST_POINTS, CreditedRound, _copies, incomes, measure
from core.adapter import AdapterState
from core.aggregation import WeightedUpdate
from core.canonical import Address
from core.credit import RoundCredit
from core.errors import ConfigError

SIDE = 60
SIZE = SIDE * SIDE
NAMES = ("a", "b", "c", "d")
ADDRESS = {name: Address(f"0x{index:040x}") for index, name in enumerate([*NAMES, "free-rider", "other"], 1)}
SOURCE = np.random.default_rng(3)
COMMON = SOURCE.normal(size=SIZE)
GOALS = {name: COMMON + 0.7 * SOURCE.normal(size=SIZE) for name in NAMES}
"""Each domain wants the state to be somewhere else, not too far from the others; so does its organisation."""
CURVATURE = np.geomspace(0.05, 4.0, SIZE)
"""Steep directions are learnt first: the steps of two rounds are not the same."""


def state(values: np.ndarray) -> AdapterState:
    return AdapterState({"m.lora_B": values.reshape(SIDE, SIDE).astype(np.float32)})


def loss(at: AdapterState, name: str) -> float:
    return float(0.5 * np.sum(CURVATURE * (at["m.lora_B"].ravel().astype(np.float64) - GOALS[name]) ** 2) / SIZE)


class World:
    """Rounds towards the goals; an honest update is a step towards one's own goal with a little noise."""

    def __init__(self, steps: int = 1) -> None:
        self.asked = 0
        self.states = [state(np.zeros(SIZE))]
        for _ in range(steps):
            self.run({})

    def loss_and_gradient(self, at: AdapterState, name: str) -> tuple[float, AdapterState]:
        self.asked += 1
        gradient = CURVATURE * (at["m.lora_B"].ravel().astype(np.float64) - GOALS[name]) / SIZE
        return loss(at, name), AdapterState({"m.lora_B": gradient.reshape(SIDE, SIDE)})

    def honest(self, name: str) -> np.ndarray:
        noise = np.random.default_rng(len(self.states)).normal(size=SIZE)
        return 0.2 * CURVATURE * (GOALS[name] - self.states[-1]["m.lora_B"].ravel()) + 0.05 * noise

    def run(self, others: Mapping[str, np.ndarray], points: int = 3) -> RoundCredit:
        sent = {name: self.honest(name) for name in NAMES} | dict(others)
        weight = 1 / len(sent)
        updates = [WeightedUpdate(ADDRESS[name], weight, state(update)) for name, update in sent.items()]
        before = self.states[-1]
        moved = before["m.lora_B"].ravel() + weight * sum(u.state["m.lora_B"].ravel() for u in updates)
        self.states.append(state(moved))
        earlier = self.states[-3] if len(self.states) > 2 else None
        losses = {name: (loss(before, name), loss(self.states[-1], name)) for name in NAMES}
        return measure(CreditedRound(before, updates, self.states[-1], earlier), self.loss_and_gradient, losses, points)

    @property
    def last_step(self) -> np.ndarray:
        return (self.states[-1]["m.lora_B"] - self.states[-2]["m.lora_B"]).ravel()


def share(credit: RoundCredit, name: str) -> float:
    """An organisation's credit over the mean of the honest."""
    mean = credit.mean
    return mean[ADDRESS[name]] / (sum(mean[ADDRESS[honest]] for honest in NAMES) / len(NAMES))


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_credits_and_what_is_nobodys_sum_to_the_change_of_every_domain(steps: int) -> None:
    world = World(steps)
    credit = world.run({"free-rider": world.last_step if steps else np.ones(SIZE)})
    for part in credit.domains.values():
        assert part.change == pytest.approx(sum(part.credits.values()) + part.nobody + part.residual)
        assert abs(part.residual) < 1e-6 * abs(part.change)


def test_the_gradients_asked_do_not_grow_with_the_organisations() -> None:
    world = World()
    before = world.asked
    world.run({"free-rider": np.ones(SIZE), "other": -np.ones(SIZE)}, points=4)
    assert world.asked - before == 4 * len(NAMES)


@pytest.mark.parametrize("points", [0, MOST_POINTS + 1])
def test_more_than_four_gradients_a_domain_are_refused(points: int) -> None:
    with pytest.raises(ConfigError, match=f"got {points}"):
        World().run({}, points)


def test_every_honest_organisation_earns_and_each_most_on_its_own_domain() -> None:
    credit = World().run({})
    assert min(credit.mean.values()) > 0
    for name in NAMES:
        part = credit.domains[name].credits
        assert max(part, key=lambda a: part[a]) == ADDRESS[name]


def test_a_small_domain_is_not_voted_down() -> None:
    """Three organisations of one domain and one of another: the mean over domains pays the one most."""
    world = World(0)
    updates = {"a": world.honest("a"), "b": world.honest("a"), "c": world.honest("a"), "d": world.honest("d")}
    rng = np.random.default_rng(0)
    flat = {n: u + 0.3 * rng.normal(size=SIZE) for n, u in updates.items()}  # of one domain, but no copies
    sent = [WeightedUpdate(ADDRESS[n], 0.25, state(u)) for n, u in flat.items()]
    after = state(np.mean([u.state["m.lora_B"].ravel() for u in sent], axis=0))
    losses = {name: (loss(world.states[0], name), loss(after, name)) for name in ("a", "d")}
    mean = measure(CreditedRound(world.states[0], sent, after), world.loss_and_gradient, losses).mean
    assert max(mean, key=lambda a: mean[a]) == ADDRESS["d"]


def test_noise_earns_less_than_a_tenth() -> None:
    for seed in range(100, 110):
        world = World(1 + seed % 3)
        norm = np.linalg.norm(world.honest("a")) / np.sqrt(SIZE)
        assert (
            share(world.run({"free-rider": norm * np.random.default_rng(seed).normal(size=SIZE)}), "free-rider") < 0.1
        )


def test_a_zero_update_earns_nothing() -> None:
    assert World().run({"free-rider": np.zeros(SIZE)}).mean[ADDRESS["free-rider"]] == 0.0


def test_the_last_aggregate_handed_back_earns_nothing_and_without_the_projection_it_would() -> None:
    world = World(2)
    credit = world.run({"free-rider": world.last_step})
    assert share(credit, "free-rider") < 1e-6
    linear = sum(part.nobody for part in credit.domains.values()) / len(NAMES)
    assert linear > 0.1 * np.mean([credit.mean[ADDRESS[name]] for name in NAMES])


def test_the_last_aggregate_handed_back_the_wrong_way_round_is_a_harm() -> None:
    world = World(2)
    assert world.run({"free-rider": -3 * world.last_step}).mean[ADDRESS["free-rider"]] < 0


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_a_copy_and_its_original_together_earn_no_more_than_one(noise: float) -> None:
    alone, world = World(), World()
    copy = world.honest("a") + noise * np.random.default_rng(1).normal(size=SIZE)
    copied = world.run({"free-rider": copy})
    both = copied.mean[ADDRESS["a"]] + copied.mean[ADDRESS["free-rider"]]
    once = alone.run({"free-rider": np.zeros(SIZE)}).mean[ADDRESS["a"]]
    assert 0 < both < once
    assert copied.mean[ADDRESS["a"]] == pytest.approx(copied.mean[ADDRESS["free-rider"]], rel=0.3 if noise else 1e-9)


class Multiplied(np.ndarray):
    """Arrays that count their products."""

    times = 0

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        Multiplied.times += ufunc is np.matmul
        plain = [np.asarray(value) if isinstance(value, Multiplied) else value for value in inputs]
        options["out"] = tuple(np.asarray(out) for out in options.get("out", ())) or None
        made = getattr(ufunc, method)(*plain, **options)
        return made.view(Multiplied) if isinstance(made, np.ndarray) else made


def test_a_copy_of_a_copy_is_one_found_by_a_single_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is turned by 20° from the one before: the first and last have little in common."""
    monkeypatch.setattr(Multiplied, "times", 0)
    angles = np.radians([0, 20, 40, 60, 80, 150, 200, 215])
    found = _copies(np.stack([np.cos(angles), np.sin(angles)], axis=1).view(Multiplied))
    assert list(found) == [5, 5, 5, 5, 5, 1, 2, 2]
    assert Multiplied.times == 1


def test_an_update_of_nothing_is_no_copy() -> None:
    assert list(_copies(np.zeros((3, 2)))) == [1, 1, 1]


def test_a_poisoned_update_is_a_harm_that_copies_do_not_divide() -> None:
    world = World()
    poison = -2 * world.honest("a")
    credit = world.run({"free-rider": poison, "other": poison}).mean
    assert credit[ADDRESS["free-rider"]] < -min(credit[ADDRESS[name]] for name in NAMES)
    assert incomes(credit, 10.0)[ADDRESS["free-rider"]] == 0.0


def test_the_pool_is_paid_in_proportion_to_positive_credit() -> None:
    a, b, c = (ADDRESS[name] for name in "abc")
    assert incomes({a: 3.0, b: 1.0, c: -2.0}, 8.0) == {a: 6.0, b: 2.0, c: 0.0}
    assert incomes({a: -1.0, b: 0.0}, 8.0) == {a: 0.0, b: 0.0}
