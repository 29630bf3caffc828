"""How strongly adapters answer to a text, and what follows for routing: sizes, zeros, ties, other texts beside it."""

import numpy as np
import pytest
import torch

from core.adapter import AdapterState
from core.composition import Composition, Part
from llm.batches import encode_prompt
from llm.evaluate import route
from llm.familiarity import answered, familiarities, inputs_of, keys
from llm.model import Model
from llm.records import Record
from llm.train import TrainConfig, train
from tests.llm.conftest import ARCHITECTURES, Loader, question
from tests.llm.test_model import random_adapter
from tests.llm.test_train import parent

TEXT = tuple(range(40, 60))


def changed(adapter: AdapterState, factor: float, name: str = "lora_B") -> AdapterState:
    """An adapter whose arrays of a name count `factor` times."""
    arrays = {n: np.float32(factor) * a if n.endswith(name) else a for n, a in adapter.arrays.items()}
    return AdapterState(arrays)


def familiarity(model: Model, *adapters: AdapterState, text: tuple[int, ...] = TEXT) -> tuple[float, ...]:
    with model.without_adapter():
        (found,) = familiarities(model, adapters, [text])
    return found


def routing(*adapters: AdapterState) -> Composition:
    return Composition("routing", tuple(Part(1 / len(adapters), adapter) for adapter in adapters))


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "opt"])
def test_it_is_the_formula_for_adapters_of_any_rank(load_tiny: Loader, architecture: str) -> None:
    """Every δ as a matrix, the inputs from a pass over all logits."""
    model = load_tiny(architecture)
    adapters = [random_adapter(model, rank=4), random_adapter(model, rank=2, seed=1)]
    names = keys(tuple(model.layers))
    inputs: dict[str, torch.Tensor] = {}
    hooks = [
        model.layers[name].register_forward_pre_hook(lambda _, given, name=name: inputs.update({name: given[0]}))
        for name in names
    ]
    with torch.no_grad(), model.without_adapter():
        model.module(input_ids=torch.tensor([TEXT]))
    for hook in hooks:
        hook.remove()
    for adapter, found in zip(adapters, familiarity(model, *adapters), strict=True):
        logs = []
        for name in names:
            delta = adapter[f"{name}.lora_B"].astype(float) @ adapter[f"{name}.lora_A"].astype(float)
            wide = delta @ inputs[name].reshape(len(TEXT), -1).double().numpy().T
            logs.append(np.log(np.linalg.norm(wide, axis=0) / np.linalg.norm(delta)))
        assert found == pytest.approx(np.mean(logs), abs=1e-4)


def test_size_is_no_familiarity(load_tiny: Loader) -> None:
    model = load_tiny()
    adapter = random_adapter(model, rank=4)
    small, large = familiarity(model, changed(adapter, 0.01), changed(adapter, 30))
    assert small == pytest.approx(large, abs=1e-5)


def test_who_learnt_nothing_answers_only_where_nobody_did(load_tiny: Loader) -> None:
    model = load_tiny()
    nothing, little = parent(model), changed(random_adapter(model, rank=4), 1e-3)
    prompt = encode_prompt(model.tokenizer, "Why?")
    assert route(model, routing(nothing, little, nothing), [prompt]) == (1,)
    assert route(model, routing(nothing, nothing), [prompt]) == (0,)


def test_a_text_is_read_alone_and_by_the_bare_base(load_tiny: Loader) -> None:
    model = load_tiny()
    adapters = routing(*(random_adapter(model, rank=4, seed=seed) for seed in range(4)))
    prompts = [encode_prompt(model.tokenizer, text) for text in ("Why?", "Name a river in Asia.", "12 + 30", "()")]
    together = route(model, adapters, prompts)
    model.set_adapter(random_adapter(model, rank=4, seed=9, scale=3))
    assert tuple(route(model, adapters, [prompt])[0] for prompt in prompts) == together
    with model.without_adapter():
        alone, beside = (list(familiarities(model, adapters.states, texts)) for texts in (prompts[1:2], prompts))
    assert alone[0] == beside[1]


def test_a_text_like_those_learnt_is_more_familiar(load_tiny: Loader) -> None:
    """Compared with the other lane: a random base gives each lane an advantage of its own for whatever text."""
    model = load_tiny()
    domains: list[list[Record]] = [
        [question(f"{a} + {b} = ?", str(a + b)) for a in range(3, 15) for b in (4, 9)],
        [question(f"WHERE IS {city}?", "FAR AWAY") for city in ("ROME", "OSLO", "LIMA", "CAIRO", "PARIS", "DELHI")],
    ]
    config = TrainConfig(20, 4, 96, 1e-2)
    lanes = [train(model, records, parent(model), config, seed=1).adapter for records in domains]
    new = ("21 + 7 = ?", "2 + 33 = ?", "WHERE IS TURIN?", "WHERE IS BONN?")
    found = [familiarity(model, *lanes, text=encode_prompt(model.tokenizer, text)) for text in new]
    ahead = [first - second for first, second in found]
    assert min(ahead[:2]) > max(ahead[2:])


def test_several_share_a_factor() -> None:
    left, right, inputs = torch.randn(3, 6, 2), torch.randn(1, 2, 5), torch.randn(7, 5)
    found = answered(left, right, inputs)
    apart = torch.cat([answered(one.unsqueeze(0), right, inputs) for one in left])
    torch.testing.assert_close(found, apart)


def test_inputs_are_those_of_the_model_as_it_stands(load_tiny: Loader) -> None:
    model = load_tiny()
    model.set_adapter(random_adapter(model, rank=4, scale=1))
    names = keys(tuple(model.layers))
    adapted = inputs_of(model, TEXT, names)
    with model.without_adapter():
        bare = inputs_of(model, TEXT, names)
    assert {tuple(found.shape) for found in bare.values()} == {(len(TEXT), 48)}
    assert any(not torch.equal(adapted[name], bare[name]) for name in names)


def test_it_reads_feed_forward_keys_where_there_are_some() -> None:
    assert keys(("a.q_proj", "a.up_proj", "a.gate_proj")) == ("a.up_proj", "a.gate_proj")
    assert keys(("a.q_proj", "a.v_proj")) == ("a.q_proj", "a.v_proj")
