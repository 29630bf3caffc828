"""Two subjects of a few numbers, whose scores can be worked out by hand (tests/llm/small_decoder.py)."""

import math
from collections.abc import Mapping

from torch import device, nn

from core.adapter import AdapterState
from core.aggregation import RULES, WeightedUpdate
from core.canonical import Address
from llm.batches import Example
from provenance.contributions import Contributions
from provenance.history import StoredRound
from provenance.method import Subject
from tests.llm.small_decoder import DOWN, Decoder, Matrix, O, RootMeanSquare, V, adapter, array, small_model
from tests.provenance.conftest import organisation

FIRST, SECOND = organisation(0), organisation(1)
EYE = [[float(i == j) for j in range(4)] for i in range(4)]
ZERO = [[0.0] * 4] * 4


def subject(
    network: Decoder, fresh_a: Mapping[str, Matrix], updates: Mapping[Address, Mapping[str, Matrix]]
) -> Subject:
    """One round of frozen-a in which organisations trained these B, each of weight 1: their sum is served."""
    zeros = {name: [[0.0]] * 4 for name in fresh_a}
    fresh = adapter({name: (zeros[name], a) for name, a in fresh_a.items()})
    rule = RULES["frozen-a"]
    before = rule.initial(fresh)
    admitted = tuple(
        WeightedUpdate(who, 1.0, AdapterState({f"{name}.lora_B": array(b.get(name, zeros[name])) for name in fresh_a}))
        for who, b in updates.items()
    )
    after = rule.aggregate(before, admitted).state
    model = small_model(network, {name: (zeros[name], a) for name, a in fresh_a.items()})
    done = StoredRound(lambda: before, lambda: after, admitted)
    contributions = Contributions(rule, fresh, ((done,),), 1.0, device("cpu"))
    found = Subject("run", after.digest, model, rule.adapter(after, fresh), contributions)
    model.set_adapter(found.adapter)
    return found


def log_linear() -> Subject:
    """Two tokens with the logits ln 3, from the first organisation, and ln 2, from the second, at every position.

    Both are added to the values of attention, which is a mean over the positions so far.
    """
    network = Decoder(EYE[:2], (ZERO, EYE, ZERO), nn.Identity(), EYE[2:])
    b = {FIRST: [[0.0], [0.0], [math.log(3)], [0.0]], SECOND: [[0.0], [0.0], [0.0], [math.log(2)]]}
    return subject(network, {V: [[1.0, 1.0, 0.0, 0.0]]}, {who: {V: column} for who, column in b.items()})


ONE, TWO = Example((1, 0), 1), Example((1, 0, 0), 1)
"""An answer of token 0, of probability 3/5, and of two of them."""


def normed() -> Subject:
    """A decoder whose last hidden state is (3, 3, 3, 3): (1, 1, 1, 0) of it from the embedding of every token.

    The first organisation writes (0, 0, 0, 3) through the output projection, the second (2, 2, 2, 0) through the MLP.
    The logit of token 0 reads the first feature, that of token 1 the last; the norm divides by 3.
    """
    network = Decoder([[1.0, 1.0, 1.0, 0.0]] * 2, (EYE, ZERO, ZERO), RootMeanSquare([1.0] * 4), [EYE[0], EYE[3]])
    row = [[1.0, 0.0, 0.0, 0.0]]
    b = {FIRST: {O: [[0.0], [0.0], [0.0], [3.0]]}, SECOND: {DOWN: [[2.0], [2.0], [2.0], [0.0]]}}
    return subject(network, {O: row, DOWN: row}, b)
