"""What a run serves, for whoever only reads it: the base of its genesis, and the adapter that its records end with."""

from dataclasses import dataclass

from core import lora, seeds
from core.adapter import AdapterState
from core.aggregation import RULES
from core.composition import Composition
from core.errors import ModelError
from core.genesis import Genesis
from core.lanes import Lane, served
from core.storage.run_folder import RunFolder
from llm.model import Model
from llm.sources import load_base


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


def shared_adapter(model: Model, rank: int, seed: int) -> AdapterState:
    """The adapter before any training: the shared A, and B = 0."""
    return lora.fresh(lora.Layout.of(model.modules, rank), seeds.shared(seed))


def base_of(genesis: Genesis, name: str) -> Model:
    """The base of a genesis, loaded from `name`; raises ModelError when it is another one here."""
    model = load_base(name, genesis.base.quantisation, genesis.rank, genesis.alpha)
    if model.digest != genesis.base.digest:
        raise ModelError(f"base model {name} is {model.digest} here, {genesis.base.digest} wanted")
    return model
