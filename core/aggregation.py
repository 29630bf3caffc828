"""The four aggregation rules: what is shared, what is sent, and how updates become the next state.

    rule      state of a lane      an update           next state
    frozen-a  every B              B_k − B             B + Σ w_k δ_k                          exact, rank constant
    fedavg    every A and B        (A_k − A, B_k − B)  each factor summed apart               inexact
    stack     A and B, rank grows  own A_k and B_k     [A; A_k …], [B, w_k B_k …]             exact, rank R + Σ r_k
    svd       every A and B        (A_k − A, B_k − B)  B A + Σ w_k (B_k A_k − B A) at rank r  residual printed

w_k = min(1, η p_k) (`weights`). With η = 1 fedavg differs from the average of the products by Σ p_k (B_k − B̄)(A_k − Ā).
frozen-a is FFA-LoRA (Sun et al., 2024, arXiv 2403.12313): A is drawn once and never trained, so a sum of updates is
an update. fedavg is FedIT (Zhang et al., 2023, arXiv 2305.05644), stack is FLoRA (Wang et al., 2024,
arXiv 2409.05976). Sums run in float64 with separate multiply and add, organisations in order of address, and are
rounded once to float32: frozen-a, fedavg and stack give the same bits for any order of arrival on any machine.
frozen-a and fedavg need one update in memory at a time, and the sum in float64; stack and svd need all updates.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.adapter import AdapterState, Array
from core.canonical import Address
from core.errors import ConfigError
from core.lora import factor

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class WeightedUpdate:
    """An organisation's unweighted update and its weight w_k; `source` may read it from a store, once for each use."""

    organisation: Address
    weight: float
    source: AdapterState | Callable[[], AdapterState]

    @property
    def state(self) -> AdapterState:
        """The update; raises what reading it raises."""
        return self.source() if callable(self.source) else self.source


class Aggregate(NamedTuple):
    """The next state, and the relative Frobenius norm of what it could not represent (0 for exact rules)."""

    state: AdapterState
    residual: float


class Rule:
    """What the four rules share: the state is an adapter, an update a difference, the aggregate linear.

    `fresh` is an adapter before any training (`core.lora.fresh`): A drawn, B = 0.
    """

    name: str
    trains_a = True

    def initial(self, fresh: AdapterState) -> AdapterState:
        """The state of a lane before round 1."""
        return fresh

    def adapter(self, state: AdapterState, fresh: AdapterState) -> AdapterState:  # noqa: ARG002 - frozen-a needs it
        """A and B of every module, ready for a model."""
        return state

    def start(self, state: AdapterState, fresh: AdapterState) -> AdapterState:
        """The adapter that an organisation trains; `fresh` is drawn for it and its round where A is trained."""
        return self.adapter(state, fresh)

    def update(self, state: AdapterState, trained: AdapterState) -> AdapterState:
        """What an organisation sends, unweighted: trained − state."""
        return AdapterState({name: trained[name] - state[name] for name in state})

    def trained(self, state: AdapterState, update: AdapterState) -> AdapterState:
        """What an organisation trained from `state` and sent as `update`: the inverse of `update`, up to rounding."""
        return AdapterState({name: state[name] + update[name] for name in state})

    def shapes(self, state: AdapterState, fresh: AdapterState) -> dict[str, tuple[int, ...]]:  # noqa: ARG002
        """The shape of every array of an update to this state."""
        return state.shapes

    def aggregate(self, state: AdapterState, updates: Iterable[WeightedUpdate]) -> Aggregate:
        """The next state: fl32(f64(state) + Σ_k w_k δ_k), organisations in order of address."""
        return Aggregate(_sum(state, _ordered(updates)), 0.0)

    def compose(self, lanes: Sequence[tuple[float, AdapterState]]) -> AdapterState:  # noqa: ARG002
        """The sum of isolated lanes, each with its weight; raises ConfigError for rules that cannot be summed."""
        raise ConfigError(f"lane-size needs aggregation frozen-a, got {self.name}: its lanes cannot be summed")


class FrozenA(Rule):
    """B^t = B^{t−1} + Σ_k w_k δ_k with one A for all, drawn once: exact, and half the traffic."""

    name = "frozen-a"
    trains_a = False

    def initial(self, fresh: AdapterState) -> AdapterState:
        """B = 0; the state holds no A."""
        return factor(fresh, "B")

    def adapter(self, state: AdapterState, fresh: AdapterState) -> AdapterState:
        """The shared A and the state's B."""
        return AdapterState({**fresh.arrays, **state.arrays})

    def compose(self, lanes: Sequence[tuple[float, AdapterState]]) -> AdapterState:
        """B = Σ_l w_l B_l, lanes in their order."""
        updates = [WeightedUpdate(Address(hex(i)), weight, state) for i, (weight, state) in enumerate(lanes)]
        return _sum(AdapterState({name: np.zeros_like(array) for name, array in lanes[0][1].arrays.items()}), updates)


class FedAvg(Rule):
    """Each factor summed apart; averaged at η = 1, as FedIT does: the baseline."""

    name = "fedavg"


class Stack(Rule):
    """Every update is a block of its own: A^t = [A^{t−1}; A_1; …], B^t = [B^{t−1}, w_1 B_1, …]."""

    name = "stack"

    def initial(self, fresh: AdapterState) -> AdapterState:
        """Rank 0."""
        return AdapterState({name: _columns(name, array, 0, 0) for name, array in fresh.arrays.items()})

    def start(self, state: AdapterState, fresh: AdapterState) -> AdapterState:
        """The stack and, behind it, the block to train."""
        return AdapterState({name: _joined(name, [state[name], fresh[name]]) for name in state})

    def update(self, state: AdapterState, trained: AdapterState) -> AdapterState:
        """The block behind the stack."""
        return AdapterState({n: _columns(n, trained[n], state[n].shape[_axis(n)], None) for n in state})

    def trained(self, state: AdapterState, update: AdapterState) -> AdapterState:
        """The stack and the block behind it."""
        return AdapterState({name: _joined(name, [state[name], update[name]]) for name in state})

    def shapes(self, state: AdapterState, fresh: AdapterState) -> dict[str, tuple[int, ...]]:  # noqa: ARG002
        """One block."""
        return fresh.shapes

    def aggregate(self, state: AdapterState, updates: Iterable[WeightedUpdate]) -> Aggregate:
        """The stack with every weighted block behind it.

        Raises ConfigError when the rank would outgrow a layer's smaller side.
        """
        # Every module needs all updates at once, so each is read from the store only once.
        ordered = _read(_ordered(updates))
        return Aggregate(AdapterState({name: _stacked(state[name], name, ordered) for name in state}), 0.0)


class Svd(Rule):
    """B A + Σ_k w_k ((B + δ^B_k)(A + δ^A_k) − B A), cut to rank r by QR of the stacks and an SVD of the core."""

    name = "svd"

    def aggregate(self, state: AdapterState, updates: Iterable[WeightedUpdate]) -> Aggregate:
        """The best rank-r factors of the exact product, singular values shared evenly between them."""
        ordered = _read(_ordered(updates))
        arrays: dict[str, Array] = {}
        lost = total = 0.0
        for module in _modules(state):
            values, arrays[f"{module}.lora_B"], arrays[f"{module}.lora_A"] = _refactored(module, state, ordered)
            rank = state[f"{module}.lora_A"].shape[0]
            lost += float(np.sum(values[rank:] ** 2))
            total += float(np.sum(values**2))
        return Aggregate(AdapterState(arrays), float(np.sqrt(lost / total)) if total else 0.0)

    def error(self, state: AdapterState, updates: Iterable[WeightedUpdate], aggregate: AdapterState) -> float:
        """Relative Frobenius distance of a claimed aggregate from the exact product, for auditors."""
        ordered = _read(_ordered(updates))
        lost = total = 0.0
        for module in _modules(state):
            b, a = _product_stacks(module, state, ordered)
            claimed = -aggregate[f"{module}.lora_B"].astype(np.float64), aggregate[f"{module}.lora_A"]
            # The difference of two products is the product of their stacks, so it is never formed at full size.
            total += _norm_of_product(b, a) ** 2
            lost += _norm_of_product(np.hstack([b, claimed[0]]), np.vstack([a, claimed[1]])) ** 2
        return float(np.sqrt(lost / total)) if total else float(np.sqrt(lost))


RULES: dict[str, Rule] = {rule.name: rule for rule in (FrozenA(), FedAvg(), Stack(), Svd())}


def weights(
    examples: Mapping[Address, int],
    server_rate: float,
    most_weight: float = 1.0,
    delays: Mapping[Address, int] = MappingProxyType({}),
) -> dict[Address, float]:
    """w_k = min(w, η p_k) / √(1 + τ_k) with p_k = n_k / Σ n_j over the admitted, in order of address.

    n_k, the server rate η and the largest weight w ≤ 1 come from the genesis, never the reply. At η = 1 the weights are
    FedAvg's mean, at η = K the sum of K equal organisations' updates: a mean divides by K what only one of them has
    taught. No update counts more than it was trained, so an organisation that is admitted alone is not multiplied.
    τ_k are the rounds that an update is late, by `delays`: the discount of FedBuff (Nguyen et al., 2022, arXiv
    2106.06639), which is exactly 1 for an update in time.
    """
    total = sum(examples.values())
    return {
        a: min(most_weight, server_rate * examples[a] / total) / math.sqrt(1 + delays.get(a, 0))
        for a in sorted(examples, key=by_address)
    }


def rank_of(adapter: AdapterState) -> int:
    """The rank of an adapter: rows of any lora_A."""
    return int(next(array.shape[0] for name, array in adapter.arrays.items() if name.endswith(".lora_A")))


def by_address(address: Address) -> int:
    """The canonical order of organisations: their addresses as numbers."""
    # As numbers, since EIP-55 spells one address in upper and lower case.
    return int(address, 16)


def _ordered(updates: Iterable[WeightedUpdate]) -> list[WeightedUpdate]:
    return sorted(updates, key=lambda update: by_address(update.organisation))


def _read(updates: list[WeightedUpdate]) -> list[WeightedUpdate]:
    """The same updates, all in memory."""
    return [WeightedUpdate(update.organisation, update.weight, update.state) for update in updates]


def _sum(start: AdapterState, updates: list[WeightedUpdate]) -> AdapterState:
    total = {name: array.astype(np.float64) for name, array in start.arrays.items()}
    for update in updates:
        _add(total, update.state, update.weight)
    # Popped, so that the float64 sums go while the float32 arrays come.
    return AdapterState({name: total.pop(name).astype(np.float32) for name in start})


def _add(total: Mapping[str, Float64], update: AdapterState, weight: float) -> None:
    for name, array in total.items():
        scaled = update[name].astype(np.float64)
        # Two operations and not one: a fused multiply-add rounds once, on some machines only.
        np.multiply(scaled, weight, out=scaled)
        np.add(array, scaled, out=array)


def _axis(name: str) -> int:
    """The axis that counts the rank: rows of A (rank × in), columns of B (out × rank)."""
    return 0 if name.endswith(".lora_A") else 1


def _columns(name: str, array: Array, start: int, stop: int | None) -> Array:
    return array[start:stop] if _axis(name) == 0 else array[:, start:stop]


def _joined(name: str, arrays: list[Array]) -> Array:
    return np.concatenate(arrays, axis=_axis(name))


def _stacked(start: Array, name: str, updates: list[WeightedUpdate]) -> Array:
    stack = _joined(name, [start, *(_weighted_block(name, update) for update in updates)])
    rank, side = stack.shape[_axis(name)], stack.shape[1 - _axis(name)]
    if rank > side:
        raise ConfigError(f"stack: {name} got rank {rank}, at most {side} fits its layer: use frozen-a or svd")
    return stack


def _weighted_block(name: str, update: WeightedUpdate) -> Array:
    if _axis(name) == 0:
        return update.state[name]
    return (update.state[name].astype(np.float64) * update.weight).astype(np.float32)


def _modules(state: AdapterState) -> list[str]:
    return [name.removesuffix(".lora_A") for name in state if name.endswith(".lora_A")]


def _product_stacks(module: str, state: AdapterState, updates: list[WeightedUpdate]) -> tuple[Float64, Float64]:
    """[(1 − Σ w) B, w_1 B_1, …] (out × (1 + K) r) and [A; A_1; …], whose product is the exact sum."""
    a, b = (state[f"{module}.lora_{factor}"].astype(np.float64) for factor in "AB")
    kept = 1.0 - sum(u.weight for u in updates)
    return (
        np.hstack([kept * b, *(u.weight * (b + u.state[f"{module}.lora_B"]) for u in updates)]),
        np.vstack([a, *(a + u.state[f"{module}.lora_A"] for u in updates)]),
    )


def _refactored(module: str, state: AdapterState, updates: list[WeightedUpdate]) -> tuple[Float64, Array, Array]:
    """Singular values of the exact product, and its best B and A of the state's rank."""
    rank = state[f"{module}.lora_A"].shape[0]
    b, a = _product_stacks(module, state, updates)
    # QR first: the SVD is then of a matrix with the stacks' small rank on both sides.
    qb, rb = np.linalg.qr(b)
    qa, ra = np.linalg.qr(a.T)
    u, values, vt = np.linalg.svd(rb @ ra.T)
    root = np.sqrt(values[:rank])
    new_b, new_a = (qb @ u[:, :rank]) * root, (vt[:rank] * root[:, None]) @ qa.T
    return values, new_b.astype(np.float32), new_a.astype(np.float32)


def _norm_of_product(b: Float64, a: Float64) -> float:
    """‖B A‖_F without forming the product."""
    return float(np.linalg.norm(np.linalg.qr(b)[1] @ np.linalg.qr(a.T)[1].T))
