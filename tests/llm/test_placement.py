from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from transformers import BitsAndBytesConfig
from transformers.models.llama import LlamaConfig

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

GIB = 2**30


@pytest.fixture(scope="module")
def seven_billion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration of a Llama of 6.7 billion weights: 12.6 GiB in bfloat16, 32 blocks of 0.38 GiB."""
    folder = tmp_path_factory.mktemp("seven-billion")
    LlamaConfig().save_pretrained(folder)
    return folder


def placed(base: Path, *free: float, quantisation: Quantisation = "none") -> dict[str, int]:
    settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4") if quantisation == "nf4" else None
    return device_map(base, settings, torch.bfloat16, {gpu: int(each * GIB) for gpu, each in enumerate(free)})


def test_a_base_that_one_gpu_holds_lies_on_that_one(seven_billion: Path) -> None:
    assert placed(seven_billion, 16, 16) == {"": 0}
    assert placed(seven_billion, 12, 16) == {"": 1}


@pytest.mark.parametrize("free", [(12, 12), (6, 12), (5, 5, 8), (4, 4, 4, 4)])
def test_a_base_that_one_gpu_is_too_small_for_lies_in_whole_blocks_on_several(
    seven_billion: Path, free: tuple[float, ...]
) -> None:
    found = placed(seven_billion, *free)
    assert found["model.embed_tokens"] == 0
    blocks = [found[f"model.layers.{number}"] for number in range(32)]
    assert blocks == sorted(blocks)
    assert set(blocks) == set(range(len(free)))
    assert all(0.376 * blocks.count(gpu) < 0.85 * each for gpu, each in enumerate(free))


def test_a_quantised_base_takes_fewer_gpus(seven_billion: Path) -> None:
    assert placed(seven_billion, 6, 6, quantisation="nf4") == {"": 0}
    assert set(placed(seven_billion, 3, 3, quantisation="nf4").values()) == {0, 1}


def test_a_base_that_all_gpus_are_too_small_for_is_refused_with_both_sizes(seven_billion: Path) -> None:
    with pytest.raises(ModelError, match=r"expected GPUs with 12\.6 GiB .* got 5\.95 GiB \+ 5\.95 GiB"):
        placed(seven_billion, 7, 7)


@pytest.mark.parametrize("blocks", ["", "1-1"])
def test_a_spread_base_learns_and_answers_with_the_same_bits(
    base_folder: Callable[[str], Path], records: tuple[Record, ...], blocks: str
) -> None:
    unload()
    model = load(ModelSpec(str(base_folder("llama")), "none", 4, 8.0, blocks=blocks, device="cpu"))
    expected = list(numbers(model, records))
    unload()
    model = load(ModelSpec(str(base_folder("llama")), "none", 4, 8.0, blocks=blocks, device="cpu"))
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
        assert step.writes is not None
        readers, base = step.writes.readers(step.logits.argmax(-1))
        yield step.logits, *step.inputs.values(), *readers.values(), base


def test_what_takes_tensors_of_two_devices_at_once_is_found() -> None:
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
