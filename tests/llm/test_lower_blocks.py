from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from llm import lower_blocks as module
from llm.batches import Batch, collate, encode
from llm.loss import answer_losses
from llm.model import Model, ModelSpec, load, unload
from llm.records import Record
from llm.train import TrainConfig, train
from tests.llm.conftest import question
from tests.llm.test_model import random_adapter

RECORDS = tuple(question(f"How many are {i} and {i}?", f"They are {2 * i}.") for i in range(4))


@pytest.fixture(params=["llama", "qwen3", "smollm3"])
def upper(request: pytest.FixtureRequest, base_folder: Callable[[str], Path]) -> Model:
    """A model with an adapter in its last block only."""
    model = load(ModelSpec(str(base_folder(request.param)), "none", 4, 8.0, blocks="last-third", device="cpu"))
    model.set_adapter(random_adapter(model, rank=4, seed=3))
    return model


def batch_of(model: Model, records: tuple[Record, ...] = RECORDS) -> Batch:
    return collate([encode(model.tokenizer, record, 64) for record in records], [(0, 1), (2,), (3,)])


def test_the_upper_blocks_go_on_where_the_lower_ones_end(upper: Model) -> None:
    batch = batch_of(upper)
    entered = upper.entered(batch)
    assert entered.entering is not None
    assert torch.allclose(answer_losses(upper, entered), answer_losses(upper, batch), rtol=1e-4, atol=1e-5)


def test_a_base_in_bfloat16_goes_on_in_its_own_type(base_folder: Callable[[str], Path]) -> None:
    unload()  # the cast is in place: the cache must not lend this model to others
    model = load(ModelSpec(str(base_folder("llama")), "none", 4, 8.0, blocks="last-third", device="cpu"))
    unload()
    model.module.to(torch.bfloat16)
    batch = batch_of(model)
    entered = model.entered(batch)
    assert entered.entering is not None
    assert torch.allclose(answer_losses(model, entered), answer_losses(model, batch), rtol=0.05)


def test_the_lower_blocks_are_passed_once_a_text(upper: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    assert upper.lower_blocks is not None
    upper.lower_blocks._kept.clear()
    passed: list[tuple[int, ...]] = []
    leaving = module.LowerBlocks.leaving

    def counted(lower: module.LowerBlocks, tokens: tuple[int, ...]) -> torch.Tensor:
        passed.append(tokens)
        return leaving(lower, tokens)

    monkeypatch.setattr(module.LowerBlocks, "leaving", counted)
    config = TrainConfig(steps=6, batch_size=2, max_length=64)
    train(upper, RECORDS, random_adapter(upper, rank=4, seed=3), config, seed=1)
    assert len(passed) == len(set(passed)) == len(RECORDS)


def test_kept_and_computed_states_train_the_same_bits(upper: Model) -> None:
    assert upper.lower_blocks is not None
    config = TrainConfig(steps=3, batch_size=2, max_length=64)
    results = []
    for _ in range(2):
        upper.lower_blocks._kept.clear()
        results += [train(upper, RECORDS, random_adapter(upper, rank=4, seed=3), config, seed=1) for _ in range(2)]
    assert len({result.adapter.digest for result in results}) == 1


def test_what_is_kept_is_bounded(upper: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    assert upper.lower_blocks is not None
    upper.lower_blocks._kept.clear()
    monkeypatch.setattr(module, "_MOST_BYTES", 2 * max(t.nbytes for t in _states(upper).values()))
    upper.lower_blocks._kept.clear()
    assert len(_states(upper)) < len(RECORDS)


def _states(model: Model) -> dict[tuple[int, ...], torch.Tensor]:
    assert model.lower_blocks is not None
    model.entered(batch_of(model))
    return dict(model.lower_blocks._kept)


@pytest.mark.parametrize("architecture", ["opt", "gemma3"])
def test_a_decoder_that_cannot_be_split_is_passed_whole(base_folder: Callable[[str], Path], architecture: str) -> None:
    model = load(ModelSpec(str(base_folder(architecture)), "none", 4, 8.0, blocks="last-third", device="cpu"))
    batch = batch_of(model)
    assert model.lower_blocks is None
    assert model.entered(batch) is batch


def test_a_model_with_an_adapter_in_its_first_block_has_no_lower_blocks(base_folder: Callable[[str], Path]) -> None:
    assert load(ModelSpec(str(base_folder("llama")), "none", 4, 8.0, device="cpu")).lower_blocks is None
