"""The served model of a run: the base of its genesis, and the adapters that its records end with.

Readers (evaluation, export, attribution, serving) start here; none of them needs the coordinator.
"""

from dataclasses import dataclass

from core import lora, seeds
from core.adapter import AdapterState
from core.aggregation import RULES
from core.composition import Composition
from core.errors import ModelError, UsageError
from core.genesis import Genesis
from core.lanes import Lane, served
from core.storage.run_folder import RunFolder
from llm.bases import located
from llm.model import Model
from llm.sources import base_of_genesis


@dataclass(frozen=True)
class Serving:
    """A base model and the composition that is served on it."""

    model: Model
    state: Composition
    """Of the states that the records name by digest."""
    adapter: Composition
    """Of the same states as A and B of every module."""
    lanes: tuple[int, ...]
    """The lanes with members, in order: each is a part of the composition, unless they are summed."""

    def one_adapter(self, option: str) -> AdapterState:
        """The adapter where only one is served; raises UsageError for what `option` asks of several."""
        parts = self.adapter.parts
        if len(parts) > 1:
            raise UsageError(f"{option}: expected one adapter, got {len(parts)} of composition {self.adapter.kind}")
        return parts[0].state


def serving(run: RunFolder, base: Model | str = "") -> Serving:
    """The model that a run serves now, on `base`: loaded already, or its place; "" is where the genesis says.

    Raises ModelError when the base here is not the one of the genesis.
    """
    genesis = run.genesis
    model = base if isinstance(base, Model) else base_of(genesis, base)
    fresh, rule = shared_adapter(model, genesis.rank, genesis.shared_seed), RULES[genesis.rule]
    lanes = [Lane.restore(run, n, run.lineage(n), run.initial(fresh)) for n in range(len(genesis.lanes))]
    state = served(genesis, lanes)
    populated = tuple(lane.index for lane in lanes if lane.members)
    return Serving(model, state, state.map(lambda part: rule.adapter(part, fresh)), populated)


def shared_adapter(model: Model, rank: int, seed: int) -> AdapterState:
    """The adapter before any training: the shared A, and B = 0."""
    return lora.fresh(lora.Layout.of(model.modules, rank), seeds.shared(seed))


def base_of(genesis: Genesis, name: str = "") -> Model:
    """The base of a genesis, from where `name` or else the genesis says, or near it where its folder has moved.

    Raises ModelError when its files have another digest.
    """
    name = located(name or genesis.base.name, genesis.base.digest)
    model = base_of_genesis(genesis, name)
    if model.digest != genesis.base.digest:
        raise ModelError(
            f"base model {name}: expected {genesis.base.digest} as in the genesis, got {model.digest}: "
            "give its place with --base"
        )
    return model
