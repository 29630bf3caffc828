r"""The factors of an organisation's contribution, for each aggregation rule.

Every contribution δ_k is a sum of few terms L R x with L of shape (out, r) and R of shape (r, in), one of which all
organisations may share. p is the weight of an update in the served adapter; D_k = Σ_t p_k^t δ_k^t over the rounds that
admitted k.

    frozen-a   D^B_k A                                                    the shared A
    fedavg     ½ D^B_k (A_0 + A_R) + ½ B_R D^A_k                          sums exactly to B_R A_R, for B_0 = 0
    stack      Σ_t p_k^t B_k^t A_k^t                                      a block a round
    svd        Σ_t p_k^t [(B^t + δB_k)(A^t + δA_k) − B^t A^t]             as [p δB, p (B + δB)] · [A; δA]

Organisations absent from rounds, unequal weights and ranks need nothing more. Updates are read once each, one
organisation after the other.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray

from core import lora
from core.adapter import AdapterState
from core.canonical import Address
from provenance.history import History
from provenance.terms import Term, Terms

Floats = NDArray[np.floating]
Make = Callable[[History, Sequence[Address], Sequence[str]], Terms]
"""(history, organisations, modules) -> the organisations' terms at the modules, on the CPU."""


def summed_terms(history: History, organisations: Sequence[Address], modules: Sequence[str]) -> Terms:
    """The terms of frozen-a and fedavg, whose updates add up factor by factor."""
    fresh = history.fresh
    trained = at_modules(fresh if history.rule.trains_a else lora.factor(fresh, "B"), modules)
    sums = {n: np.zeros((len(organisations), *_rank_first(n, a).shape), np.float32) for n, a in trained.arrays.items()}
    for index, organisation in enumerate(organisations):
        for name, total in history.total(organisation, tuple(trained)).items():
            sums[name][index] = _rank_first(name, total)
    factors = {name: torch.from_numpy(array) for name, array in sums.items()}
    if not history.rule.trains_a:
        return {m: (Term(factors[f"{m}.lora_B"].mT, _tensor(fresh[f"{m}.lora_A"][None])),) for m in modules}
    last = history.lanes[0][-1].after()
    terms = {}
    for m in modules:
        a, b = f"{m}.lora_A", f"{m}.lora_B"
        middle = 0.5 * (fresh[a].astype(np.float64) + last[a])
        terms[m] = Term(factors[b].mT, _tensor(middle[None])), Term(_tensor(0.5 * last[b][None]), factors[a])
    return terms


def stacked_terms(history: History, organisations: Sequence[Address], modules: Sequence[str]) -> Terms:
    """The terms of stack: a block p B, A for each round."""
    blocks = _no_blocks(organisations, modules)
    for index, _, update in history.updates(organisations):
        state = update.state
        for m in modules:
            weighted = update.weight * state[f"{m}.lora_B"].astype(np.float64)
            blocks[m][index].append((weighted.astype(np.float32), state[f"{m}.lora_A"]))
    return {m: (_side_by_side(blocks[m]),) for m in modules}


def product_terms(history: History, organisations: Sequence[Address], modules: Sequence[str]) -> Terms:
    """The terms of svd: [p δB, p (B + δB)] and [A; δA] for each round."""
    blocks = _no_blocks(organisations, modules)
    current, before = None, history.fresh
    for index, done, update in history.updates(organisations):
        # Updates come round by round: the state before a round is read once for all of them.
        if done is not current:
            current, before = done, done.before()
        state = update.state
        for m in modules:
            a, b = f"{m}.lora_A", f"{m}.lora_B"
            change = state[b].astype(np.float64)
            blocks[m][index].append(((update.weight * change).astype(np.float32), before[a]))
            blocks[m][index].append(((update.weight * (before[b] + change)).astype(np.float32), state[a]))
    return {m: (_side_by_side(blocks[m]),) for m in modules}


TERMS: Mapping[str, Make] = MappingProxyType(
    {"frozen-a": summed_terms, "fedavg": summed_terms, "stack": stacked_terms, "svd": product_terms}
)
"""The terms of the contributions, by rule."""


def client_terms(history: History, organisations: Sequence[Address], modules: Sequence[str]) -> Terms:
    """The adapters that candidates trained themselves in the last round; of several shards, the mean of theirs."""
    own: dict[Address, list[AdapterState]] = {organisation: [] for organisation in organisations}
    fresh = at_modules(history.fresh, modules)
    for last in (lane[-1] for lane in history.lanes if lane):
        if updates := [update for update in last.updates if update.organisation in own]:
            before = at_modules(last.before(), modules)
            for update in updates:
                trained = history.rule.trained(before, at_modules(update.state, modules))
                own[update.organisation].append(history.rule.adapter(trained, fresh))
    terms = {}
    for m in modules:
        # Several shards are served as one sum only under frozen-a, where all share A.
        means = [np.mean([state[f"{m}.lora_B"] for state in own[o]], 0, np.float32).T for o in organisations]
        rights = [own[o][0][f"{m}.lora_A"] for o in organisations]
        right = _tensor(np.stack(rights if history.rule.trains_a else rights[:1]))
        terms[m] = (Term(_tensor(np.stack(means)).mT, right),)
    return terms


def bytes_each(history: History, modules: Sequence[str]) -> int:
    """Bytes of one organisation's factors at the modules, at most."""
    own = at_modules(history.fresh if history.rule.trains_a else lora.factor(history.fresh, "B"), modules)
    if history.rule.name not in {"stack", "svd"}:
        return own.nbytes
    blocks = max(len(lane) for lane in history.lanes) * (2 if history.rule.name == "svd" else 1)
    return own.nbytes * blocks


def at_modules(state: AdapterState, modules: Sequence[str]) -> AdapterState:
    """Only the arrays of these modules."""
    return AdapterState({name: array for name, array in state.arrays.items() if name.rpartition(".")[0] in modules})


def _rank_first(name: str, array: Floats) -> Floats:
    """A as it is, B transposed: contracting is fastest so (see Term)."""
    return array if name.endswith(".lora_A") else array.T


_Blocks = dict[str, list[list[tuple[Floats, Floats]]]]
"""Pairs of factors (out, r) and (r, in), by module and organisation."""


def _no_blocks(organisations: Sequence[Address], modules: Sequence[str]) -> _Blocks:
    return {name: [[] for _ in organisations] for name in modules}


def _side_by_side(organisations: list[list[tuple[Floats, Floats]]]) -> Term:
    """The blocks of each organisation as one term; ranks are padded with zeros to the largest."""
    rank = max(sum(left.shape[1] for left, _ in blocks) for blocks in organisations)
    example = next(blocks[0] for blocks in organisations if blocks)
    lefts = np.zeros((len(organisations), rank, example[0].shape[0]), np.float32)
    rights = np.zeros((len(organisations), rank, example[1].shape[1]), np.float32)
    for index, blocks in enumerate(organisations):
        start = 0
        for left, right in blocks:
            stop = start + left.shape[1]
            lefts[index, start:stop], rights[index, start:stop] = left.T, right
            start = stop
    return Term(torch.from_numpy(lefts).mT, torch.from_numpy(rights))


def _tensor(array: Floats) -> torch.Tensor:
    return torch.from_numpy(np.array(array, np.float32))
