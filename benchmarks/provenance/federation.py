"""A federation in one process with what attribution asks of it: after each round, who contributed what."""

from collections.abc import Iterator, Sequence
from functools import partial

from benchmarks.in_process import RULE, Member, Plan, fresh_adapter, learn
from core.adapter import AdapterState
from llm.model import Model
from provenance.contributions import Contributions, Part, Step
from provenance.method import Subject


def federate(model: Model, members: Sequence[Member], plan: Plan, seed: int) -> Iterator[Subject]:
    """Train round by round; yields what is asked about after each."""
    fresh, steps = fresh_adapter(model, seed), list[Step]()
    for done in learn(model, members, plan, seed):
        parts = tuple(Part(u.organisation, u.weight, partial(_same, u.state)) for u in done.updates)
        steps.append(Step(partial(_same, done.before), partial(_same, done.after), parts))
        contributions = Contributions(RULE, fresh, (tuple(steps),), model.spec.alpha / model.spec.rank, model.device)
        yield Subject("benchmark", done.after.digest, model, RULE.adapter(done.after, fresh), contributions)


def _same(state: AdapterState) -> AdapterState:
    return state
