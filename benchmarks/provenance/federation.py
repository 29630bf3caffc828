"""A federation in one process with what attribution asks of it: after each round, who contributed what."""

from collections.abc import Iterator, Sequence
from functools import partial

from benchmarks.in_process import RULE, Member, Plan, fresh_adapter, learn
from core.adapter import AdapterState
from llm.model import Model
from provenance.contributions import Contributions
from provenance.history import StoredRound
from provenance.method import Subject


def federate(model: Model, members: Sequence[Member], plan: Plan, seed: int) -> Iterator[Subject]:
    """Train round by round; yields what is asked about after each."""
    fresh, steps = fresh_adapter(model, seed), list[StoredRound]()
    for done in learn(model, members, plan, seed):
        steps.append(StoredRound(partial(_same, done.before), partial(_same, done.after), tuple(done.updates)))
        contributions = Contributions(RULE, fresh, (tuple(steps),), model.spec.alpha / model.spec.rank, model.device)
        yield Subject("benchmark", done.after.digest, model, RULE.adapter(done.after, fresh), contributions)


def _same(state: AdapterState) -> AdapterState:
    return state
