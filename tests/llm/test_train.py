import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from core.adapter import AdapterState
from core.errors import ConfigError, DataError
from llm.batches import collate, encode
from llm.evaluate import evaluate
from llm.loss import answer_losses
from llm.model import Model
from llm.records import Record
from llm.train import TrainConfig, steps_of, train
from tests.llm.conftest import ARCHITECTURES, TERMS, Loader, question
from tests.precision import up_to_rounding

CONFIG = TrainConfig(steps=4, batch_size=2, max_length=96, learning_rate=1e-2)


def parent(model: Model, rank: int = 4, seed: int = 0) -> AdapterState:
    """Random A, zero B."""
    rng = np.random.default_rng(seed)
    arrays: dict[str, Any] = {}
    for name, (inputs, outputs) in model.modules.items():
        arrays[f"{name}.lora_A"] = rng.standard_normal((rank, inputs), dtype=np.float32) / math.sqrt(inputs)
        arrays[f"{name}.lora_B"] = np.zeros((outputs, rank), np.float32)
    return AdapterState(arrays)


@pytest.mark.parametrize("quantisation", ["none", "nf4", "int8"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_training_lowers_the_loss(
    load_tiny: Loader, records: tuple[Record, ...], architecture: str, quantisation: str
) -> None:
    model = load_tiny(architecture, quantisation)
    start = parent(model)
    result = train(model, records, start, CONFIG, seed=1)
    before, after = (evaluate(model, state, records, 96).loss for state in (start, result.adapter))
    assert after < 0.97 * before


@pytest.mark.parametrize("quantisation", ["none", "nf4"])
def test_training_again_gives_the_same_bytes(load_tiny: Loader, records: tuple[Record, ...], quantisation: str) -> None:
    model = load_tiny(quantisation=quantisation)
    first = train(model, records, parent(model), CONFIG, seed=1)
    torch.manual_seed(99)
    train(model, records[:5], parent(model, seed=3), replace(CONFIG, train_a=True), seed=2)
    evaluate(model, None, records)
    again = train(model, records, parent(model), CONFIG, seed=1)
    assert again.adapter == first.adapter
    assert (again.loss, again.tokens, again.examples) == (first.loss, first.tokens, first.examples)


def test_dropout_changes_training_alone_and_is_decided_by_the_seed(
    load_tiny: Loader, records: tuple[Record, ...]
) -> None:
    model, dropping = load_tiny(), replace(CONFIG, dropout=0.5)
    plain = train(model, records, parent(model), CONFIG, seed=1)
    first, again = (train(model, records, parent(model), dropping, seed=1) for _ in range(2))
    assert first.adapter == again.adapter != plain.adapter
    assert train(model, records, parent(model), CONFIG, seed=1).adapter == plain.adapter
    before = evaluate(model, first.adapter, records, 96)
    assert evaluate(model, first.adapter, records, 96) == before


def test_the_seed_decides_dropout(load_tiny: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_tiny()
    for layer in model.module.get_base_model().model.layers:
        monkeypatch.setattr(layer.self_attn, "attention_dropout", 0.3)
    record = [question("What?", "This.")]  # one record: every seed draws the same batches
    first, again, other = (train(model, record, parent(model), CONFIG, seed).adapter for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_the_seed_decides_the_batches(load_tiny: Loader, records: tuple[Record, ...]) -> None:
    model = load_tiny()
    assert (
        train(model, records, parent(model), CONFIG, 1).adapter
        != train(model, records, parent(model), CONFIG, 2).adapter
    )


def test_training_leaves_generators_and_threads_alone(load_tiny: Loader, records: tuple[Record, ...]) -> None:
    model = load_tiny()
    torch.manual_seed(5)
    wanted, threads = torch.rand(3), torch.get_num_threads()
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002 (the global generator is what must stay as it is)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    train(model, records, parent(model), CONFIG, seed=1)
    assert torch.equal(torch.rand(3), wanted)
    assert torch.get_num_threads() == threads
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def changed(before: AdapterState, after: AdapterState) -> dict[str, np.ndarray]:
    return {name: before[name] != after[name] for name in before}


@pytest.mark.parametrize("quantisation", ["none", "nf4"])
def test_a_frozen_a_stays_bit_for_bit(load_tiny: Loader, records: tuple[Record, ...], quantisation: str) -> None:
    model = load_tiny(quantisation=quantisation)
    start = parent(model)
    differs = changed(start, train(model, records, start, CONFIG, seed=1).adapter)
    assert not any(array.any() for name, array in differs.items() if name.endswith("lora_A"))
    assert all(array.any() for name, array in differs.items() if name.endswith("lora_B"))


def test_both_factors_can_be_trained(load_tiny: Loader, records: tuple[Record, ...]) -> None:
    model = load_tiny()
    start = parent(model)
    differs = changed(start, train(model, records, start, replace(CONFIG, train_a=True), seed=1).adapter)
    assert all(array.any() for array in differs.values())


@pytest.mark.parametrize("train_a", [False, True])
def test_only_the_wanted_columns_are_trained(load_tiny: Loader, records: tuple[Record, ...], train_a: bool) -> None:
    model = load_tiny()
    start = train(model, records, parent(model, rank=6), replace(CONFIG, train_a=True), seed=3).adapter
    config = replace(CONFIG, train_a=train_a, first_column=2, columns=3)
    differs = changed(start, train(model, records, start, config, seed=1).adapter)
    wanted = [False, False, True, True, True, False]
    for name, array in differs.items():
        columns = array.any(axis=1 if name.endswith("lora_A") else 0)
        assert columns.tolist() == (wanted if train_a or name.endswith("lora_B") else [False] * 6)


def test_columns_outside_the_adapter_are_refused(load_tiny: Loader, records: tuple[Record, ...]) -> None:
    model = load_tiny()
    for wrong in ({"columns": 5}, {"first_column": 4}, {"first_column": 2, "columns": 3}):
        with pytest.raises(ConfigError, match="rank 4"):
            train(model, records, parent(model), replace(CONFIG, **wrong), seed=1)


def test_a_first_step_is_that_of_adamw_on_the_mean_answer_loss(load_tiny: Loader) -> None:
    """AdamW's first step moves every weight by the learning rate times the sign of its gradient."""
    model = load_tiny()
    record = question("What?", "This.")
    start = parent(model)
    result = train(model, [record], start, TrainConfig(1, 1, 32, learning_rate=1e-2, first_step=10, total_steps=20), 1)
    model.set_adapter(start)
    answer_losses(model, collate([encode(model.tokenizer, record, 32)], [(0,)])).mean().backward()
    for name, linear in model.factors():
        if name.endswith("lora_B"):
            gradient = linear.weight.grad.numpy()
            step = result.adapter[name] - start[name]
            # Half-way down the cosine; gradients near Adam's epsilon are left out.
            clear = np.abs(gradient) > 1e-4
            np.testing.assert_allclose(step[clear], -0.005 * np.sign(gradient[clear]), rtol=1e-2)
        linear.weight.grad = None


def test_accumulation_equals_the_larger_batch(load_tiny: Loader, records: tuple[Record, ...]) -> None:
    model = load_tiny()
    whole = train(model, records, parent(model), replace(CONFIG, batch_size=4), seed=1)
    parts = train(model, records, parent(model), replace(CONFIG, batch_size=1, accumulation=4), seed=1)
    assert parts.tokens == whole.tokens
    assert parts.loss == pytest.approx(whole.loss, rel=1e-4)
    for name in whole.adapter:
        np.testing.assert_allclose(parts.adapter[name], whole.adapter[name], atol=2e-3)


@pytest.mark.parametrize("quantisation", ["none", "nf4"])
def test_gradient_checkpointing_changes_nothing_but_memory(
    load_tiny: Loader, records: tuple[Record, ...], quantisation: str
) -> None:
    model = load_tiny(quantisation=quantisation)
    plain = train(model, records, parent(model), CONFIG, seed=1)
    checkpointed = train(model, records, parent(model), replace(CONFIG, gradient_checkpointing=True), seed=1)
    assert checkpointed.adapter == plain.adapter
    assert not model.module.get_base_model().is_activation_checkpointing


def test_the_schedule_is_one_cosine_over_the_whole_federation() -> None:
    calls = [TrainConfig(steps=25, first_step=25 * t, total_steps=100, learning_rate=1.0) for t in range(4)]
    rates = [config.rate(step) for config in calls for step in range(25)]
    assert rates[0] == pytest.approx(1 / 3)
    assert rates[2] == pytest.approx(1.0, abs=1e-2)
    assert rates[50] == pytest.approx(0.5)
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert rates[-1] < 1e-3


def test_an_epoch_shows_every_record_once(load_tiny: Loader) -> None:
    model = load_tiny()
    records = [question("?", f"{i:03d} " + "x" * 20) for i in range(12)]
    length = len(encode(model.tokenizer, records[0], 96))
    result = train(model, records, parent(model), replace(CONFIG, steps=3, batch_size=2, max_length=2 * length), seed=1)
    assert result.examples == 12
    assert result.tokens == 12 * length


def test_steps_follow_the_data_up_to_a_limit(load_tiny: Loader, records: tuple[Record, ...]) -> None:
    model = load_tiny()
    tokens = sum(len(encode(model.tokenizer, record, 96)) for record in records)
    once = math.ceil(tokens / (2 * 96))
    assert once > 1
    assert steps_of(model, records, 1.0, 2, 96, most=100) == once
    assert steps_of(model, records, 2.0, 2, 96, most=100) == math.ceil(2 * tokens / (2 * 96))
    assert steps_of(model, records, 1.0, 2, 96, most=once) == once
    assert steps_of(model, records, 1.0, 2, 96, most=once - 1) == once - 1
    assert steps_of(model, records, 0.0, 2, 96, most=7) == 7
    assert steps_of(model, records[:1], 0.01, 2, 96, most=7) == 1


def test_the_loss_counts_answers_only(load_tiny: Loader) -> None:
    model = load_tiny()
    record = question("A long prompt that is hard to guess", "x")
    result = train(model, [record], parent(model), replace(CONFIG, steps=1, batch_size=1), seed=1)
    assert result.loss == up_to_rounding(evaluate(model, None, [record], 96).loss, TERMS)


def test_no_record_to_learn_from_is_a_data_error(load_tiny: Loader) -> None:
    model = load_tiny()
    with pytest.raises(DataError, match="0 records"):
        train(model, [], parent(model), CONFIG, seed=1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"batch_size": 0},
        {"accumulation": -1},
        {"max_length": 1},
        {"learning_rate": 0.0},
        {"learning_rate": math.nan},
        {"clip_norm": 0.0},
        {"first_step": -1},
        {"first_step": 7, "total_steps": 10},
        {"columns": 0},
        {"first_column": -1},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        replace(CONFIG, **wrong)
