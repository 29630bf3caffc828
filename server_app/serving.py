"""What a run serves, for those who only read it: the base model and the adapter that its records end with."""

from dataclasses import dataclass

from core.adapter import AdapterState
from core.aggregation import RULES
from core.errors import ModelError
from core.store import RunFolder
from llm.model import Model
from llm.sources import load_base
from server_app.founding import shared_adapter
from server_app.lanes import Lane, served


@dataclass(frozen=True)
class Serving:
    """A base model and what is served on it: the state as recorded, and as A and B of every module."""

    model: Model
    state: AdapterState
    adapter: AdapterState


def serving(run: RunFolder) -> Serving:
    """What a run serves now; raises ModelError when the base here is not the one of the genesis."""
    genesis = run.genesis
    model = load_base(genesis.base.name, genesis.base.quantisation, genesis.rank, genesis.alpha)
    if model.digest != genesis.base.digest:
        raise ModelError(f"base model {genesis.base.name} is {model.digest} here, {genesis.base.digest} wanted")
    fresh, rule = shared_adapter(model, genesis.rank, genesis.seed), RULES[genesis.rule]
    lanes = [Lane.restore(run, index, rule.initial(fresh)) for index in range(len(genesis.lanes))]
    state = served(genesis, rule, lanes)
    return Serving(model, state, rule.adapter(state, fresh))
