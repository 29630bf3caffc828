from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from transformers import BitsAndBytesConfig

from core.adapter import AdapterState
from core.composition import Composition
from core.errors import ModelError
from llm.decoding import Answer, Decoder, Sampling, factors_of
from llm.evaluate import evaluate, generate
from llm.familiarity import inputs_of
from llm.loss_and_gradient import loss_and_gradient
from llm.model import Model, ModelSpec, Quantisation, load, unload
from llm.placement import device_map
from llm.records import Record
from llm.train import TrainConfig, train
from tests.llm.made_up_devices import FIRST, SECOND, Devices, spread

MUCH = 2**30
BLOCK = 4 * (2 * 48 * 48 + 2 * 48 * 24 + 3 * 48 * 80)
"""About the bytes of a block of the tiny base in float32."""
WHOLE = 2 * BLOCK + 4 * 260 * 48


@pytest.fixture
def base(base_folder: Callable[[str], Path]) -> Path:
    return base_folder("llama")


def placed(base: Path, *free: int, quantisation: Quantisation = "none") -> dict[str, int]:
    settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4") if quantisation == "nf4" else None
    return device_map(base, settings, torch.float32, dict(enumerate(free)))


def test_a_base_that_one_gpu_holds_lies_on_that_one(base: Path) -> None:
    assert placed(base, MUCH, MUCH) == {"": 0}
    assert placed(base, 1000, MUCH) == {"": 1}


def test_a_base_that_one_gpu_is_too_small_for_lies_in_whole_blocks_on_several(base: Path) -> None:
    found = placed(base, WHOLE, WHOLE)
    assert set(found.values()) == {0, 1}
    blocks = {name: gpu for name, gpu in found.items() if ".layers." in name}
    assert blocks == {"model.layers.0": 0, "model.layers.1": 1}
    assert found["model.embed_tokens"] == 0


def test_a_quantised_base_takes_fewer_gpus(base: Path) -> None:
    assert placed(base, WHOLE, WHOLE, quantisation="nf4") == {"": 0}


def test_a_base_that_all_gpus_are_too_small_for_is_refused_with_both_sizes(base: Path) -> None:
    with pytest.raises(ModelError, match=r"expected GPUs with 0\.00\d+ GiB .* got 0\.00\d+ GiB \+ 0\.00\d+ GiB"):
        placed(base, WHOLE // 3, WHOLE // 3)


@pytest.mark.parametrize("blocks", ["", "1-1"])
def test_a_spread_base_learns_and_answers_with_the_same_bits(
    base: Path, records: tuple[Record, ...], blocks: str
) -> None:
    unload()
    model = load(ModelSpec(str(base), "none", 4, 8.0, blocks=blocks, device="cpu"))
    expected = list(numbers(model, records))
    unload()
    model = load(ModelSpec(str(base), "none", 4, 8.0, blocks=blocks, device="cpu"))
    with spread(model, ("model.layers.1", "model.norm")) as devices:
        assert model.device == FIRST
        assert {str(devices.of[layer.lora_B["default"].weight]) for layer in model.layers.values()} == (
            {str(SECOND)} if blocks else {str(FIRST), str(SECOND)}
        )
        found = list(numbers(model, records))
        assert devices.moves
    unload()
    for mine, other in zip(found, expected, strict=True):
        assert torch.equal(torch.as_tensor(mine), torch.as_tensor(other))


def numbers(model: Model, records: Sequence[Record]) -> list[torch.Tensor | float]:
    """What a member computes: losses, an adapter, gradients, activations, an answer."""
    trained = train(model, records, model.get_adapter(), TrainConfig(2, 2, 64, train_a=True), 3)
    names = [name for name, _ in model.factors()]
    loss, gradient = loss_and_gradient(model, trained.adapter, names, records[:3])
    model.set_adapter(trained.adapter)
    read = inputs_of(model, range(3, 20), list(model.layers))
    return [
        trained.loss,
        *(torch.from_numpy(trained.adapter[name].copy()) for name in names),
        loss,
        *(torch.from_numpy(gradient[name].copy()) for name in names),
        *read.values(),
        evaluate(model, trained.adapter, records[:4], 64).loss,
        *generate(model, trained.adapter, "How many?", 4),
        *(score for step in decoded(model, trained.adapter) for score in step),
    ]


def decoded(model: Model, adapter: AdapterState) -> Iterator[tuple[torch.Tensor, ...]]:
    """What is seen while two answers are decoded together."""
    decoder, factors = Decoder(model), factors_of(model, Composition.of(adapter))
    steps = [decoder.begin(Answer(tuple(range(40, last)), factors, Sampling(), 3, watched=True)) for last in (50, 53)]
    while len(decoder):
        steps += decoder.step()
    for step in steps:
        readers, base = step.writes.readers(step.logits.argmax(-1))
        yield step.logits, *step.inputs.values(), *readers.values(), base


def test_what_takes_tensors_of_two_devices_at_once_is_found(base: Path) -> None:
    devices = Devices()
    with devices:
        here, there = torch.ones(2, device=FIRST), torch.ones(2, device=SECOND)
        assert (here.device, there.device) == (FIRST, SECOND)
        with pytest.raises(RuntimeError, match="one device"):
            here + there
        with pytest.raises(RuntimeError, match="one device"):
            torch.stack([here, there])
        with pytest.raises(RuntimeError, match="one device"):
            here[there > 0]
        assert (here + there.to(here)).device == FIRST
        assert (here * 2).cpu().device == torch.device("cpu")
