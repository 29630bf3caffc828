"""What a run serves, for those who only read it: the base model, what its records end with, and its origin."""

from dataclasses import dataclass

from core.aggregation import RULES
from core.canonical import Address
from core.composition import Composition
from core.errors import UsageError
from core.store import RunFolder
from llm.model import Model
from provenance.apart import Apart
from provenance.attribution import DEFAULT, attribute, check_method
from provenance.method import Subject
from provenance.trace import TokenTrace
from server_app.founding import base_of, shared_adapter
from server_app.lanes import Lane, served


@dataclass(frozen=True)
class Serving:
    """A base model and what is served on it: states as recorded, and as A and B of every module."""

    model: Model
    state: Composition
    adapter: Composition
    lanes: tuple[int, ...]
    """Those that somebody learns in, in order: each a part, unless they are summed."""


def serving(run: RunFolder) -> Serving:
    """What a run serves now; raises ModelError when the base here is not the one of the genesis."""
    genesis = run.genesis
    model = base_of(genesis, genesis.base.name)
    fresh, rule = shared_adapter(model, genesis.rank, genesis.seed), RULES[genesis.rule]
    lanes = [Lane.restore(run, index, rule.initial(fresh)) for index in range(len(genesis.lanes))]
    state = served(genesis, lanes)
    learning = tuple(lane.index for lane in lanes if lane.members)
    return Serving(model, state, state.map(lambda part: rule.adapter(part, fresh)), learning)


def subject(run: RunFolder) -> Subject | Apart:
    """What a run serves, with who contributed what to it; raises UsageError when nobody did."""
    found = serving(run)
    digest, adapters = found.state.digest, found.adapter
    if len(adapters.parts) == 1:
        return Subject.of(run, found.model, digest, adapters.states[0])
    parts = zip(found.lanes, adapters.states, strict=True)
    return Apart(adapters, tuple(Subject.of(run, found.model, digest, adapter, lane) for lane, adapter in parts))


def trace(
    run: RunFolder,
    prompt: str,
    response: str | None,
    method: str = DEFAULT,
    max_new_tokens: int = 64,
    organisation: Address | None = None,
) -> TokenTrace:
    """Who taught the tokens of a response, or of the model's own greedy answer when it is None.

    Raises UsageError for an unknown method, no prompt, an empty response, more tokens than the context holds, a run
    without contributions, and a member `organisation` that the method finds no contribution of.
    """
    check_method(method)
    if not prompt.strip():
        raise UsageError("the prompt is empty, a question wanted")
    found = attribute(subject(run), prompt, response, method, max_new_tokens)
    if organisation is not None and organisation not in found.organisations:
        name = run.genesis.names[organisation]
        raise UsageError(
            f"{name} has no part in what is served: never admitted, erased, absent from the last round, "
            "or in another lane than the one that answers"
        )
    return found
