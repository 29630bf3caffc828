"""Small federations of random updates on tiny random models: everything is real but the training."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest

from core import lora
from core.adapter import AdapterState
from core.aggregation import RULES, Rule, WeightedUpdate
from core.canonical import Address
from llm.batches import Example
from llm.model import Model
from provenance.contributions import Contributions
from provenance.history import StoredRound
from provenance.method import Subject
from tests.llm.conftest import base_folder, load_tiny

__all__ = ["base_folder", "load_tiny"]

EXAMPLE = Example(tuple(b"How many are two and three?" + b"They are five."), 27)
SIZE = 0.15
TERMS = 2 * 80
"""The longest sum behind a score of a tiny base: its two blocks, one after the other, with 80 inner features each."""

Federate = Callable[..., Subject]


def organisation(number: int) -> Address:
    return Address(f"0x{number + 1:040x}")


def updates(rule: Rule, state: AdapterState, fresh: AdapterState, number: int, who: Sequence[int], rank: int) -> Any:
    """Weighted random updates: unequal weights, and every second organisation trains only the first `rank` columns."""
    total = sum(k + 1 for k in who)
    for k in who:
        source = np.random.default_rng([number, k])
        arrays = {}
        for name, shape in rule.shapes(state, fresh).items():
            values = SIZE * source.normal(size=shape).astype(np.float32)
            if k % 2:
                values[(slice(rank, None),) if name.endswith("A") else (slice(None), slice(rank, None))] = 0
            arrays[name] = values
        yield WeightedUpdate(organisation(k), (k + 1) / total, AdapterState(arrays))


def federation(
    model: Model,
    rule_name: str = "frozen-a",
    rounds: Sequence[Sequence[int]] = ((0, 1, 2), (0, 1, 2)),
    seed: bytes = b"x",
) -> Subject:
    """What a lane whose rounds admitted these organisations would serve."""
    rule, rank = RULES[rule_name], model.spec.rank
    fresh = lora.fresh(lora.Layout.of(model.modules, rank), seed)
    state, steps = rule.initial(fresh), []
    for number, who in enumerate(rounds):
        admitted = list(updates(rule, state, fresh, number, who, rank // 2))
        before, (state, _) = state, rule.aggregate(state, admitted)
        steps.append(StoredRound(partial(_same, before), partial(_same, state), tuple(admitted)))
    contributions = Contributions(rule, fresh, (tuple(steps),), model.spec.alpha / rank, model.device)
    return Subject("run", state.digest, model, rule.adapter(state, fresh), contributions)


@pytest.fixture
def federate(load_tiny: Callable[..., Model]) -> Federate:
    """A subject of a tiny model; the model holds the served adapter."""

    def make(architecture: str = "llama", quantisation: str = "none", rank: int = 4, **options: Any) -> Subject:
        subject = federation(load_tiny(architecture, quantisation, rank), **options)
        subject.model.set_adapter(subject.adapter)
        return subject

    return make


def _same(state: AdapterState) -> AdapterState:
    return state
