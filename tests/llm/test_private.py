"""Private training: gradients by record, clipped and noised, with sampling and noise that the secret decides."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from core.adapter import AdapterState
from core.errors import ModelError
from core.secret_stream import SecretStream
from llm.batches import collate, encode
from llm.loss import answer_losses
from llm.model import Model
from llm.private import Mechanism, PrivateLoop, gradients_by_row, mean_of_rows, train_privately
from llm.records import Record
from llm.train import TrainConfig
from tests.llm.conftest import ARCHITECTURES, Loader, question
from tests.llm.test_train import parent

CONFIG = TrainConfig(steps=3, batch_size=3, max_length=96, learning_rate=1e-2)
SECRET = bytes(range(32))
MECHANISM = Mechanism(rate=0.3, clip=0.5, noise=1.0, expected=2.0, secret=SECRET)
SILENT = replace(MECHANISM, noise=0.0)


def trained_b(model: Model, seed: int = 0) -> AdapterState:
    """An adapter whose B is not zero."""
    rng = np.random.default_rng(seed)
    start = parent(model)
    return AdapterState(
        {n: start[n] if n.endswith("A") else 0.1 * rng.standard_normal(start[n].shape, dtype=np.float32) for n in start}
    )


def alone(model: Model, record: Record) -> dict[torch.nn.Parameter, torch.Tensor]:
    """The gradient of every B of one record's mean answer loss, by ordinary backpropagation."""
    weights = [linear.weight for name, linear in model.factors() if name.endswith("B")]
    batch = collate([encode(model.tokenizer, record, 96)], [(0,)])
    loss = answer_losses(model, batch).mean()
    return dict(zip(weights, torch.autograd.grad(loss, weights), strict=True))  # type: ignore[arg-type]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("quantisation", ["none", "nf4"])
def test_gradients_by_record_are_those_of_a_loop_over_single_records(
    load_tiny: Loader, records: tuple[Record, ...], architecture: str, quantisation: str
) -> None:
    model = load_tiny(architecture, quantisation)
    model.set_adapter(trained_b(model))
    loop = PrivateLoop(model, CONFIG, MECHANISM, SecretStream(SECRET))
    chosen = records[:4]
    batch = collate([encode(model.tokenizer, record, 96) for record in chosen], [(i,) for i in range(4)])
    with gradients_by_row(model, 4) as gradients:
        loop.accumulate(batch, mean_of_rows)
    assert set(gradients) == set(loop.masks)
    # bfloat16 has 8 bits: rows of another length are rounded otherwise.
    precision = 1e-4 if model.spec.quantisation == "none" else 0.1
    for row, record in enumerate(chosen):
        expected = alone(model, record)
        size = torch.stack([each.norm() for each in expected.values()]).norm()
        gap = torch.stack([(gradients[weight][row] - each).norm() for weight, each in expected.items()]).norm()
        assert gap <= precision * size


def step_of(model: Model, records: list[Record], mechanism: Mechanism, **changes: int) -> dict[str, torch.Tensor]:
    """The gradient by which a step on these records moves, by the name of its factor."""
    loop = PrivateLoop(model, replace(CONFIG, **changes), mechanism, SecretStream(SECRET))
    taken: dict[str, torch.Tensor] = {}

    def keep(_rate: float) -> None:
        taken.update({n: linear.weight.grad.clone() for n, linear in model.factors() if linear.weight.grad is not None})
        loop.optimizer.zero_grad()

    loop.descend = keep  # type: ignore[method-assign]
    loop.private_step([encode(model.tokenizer, record, 96) for record in records], 0.0)
    return taken


def norm(gradients: dict[str, torch.Tensor]) -> float:
    return float(torch.stack([each.norm() for each in gradients.values()]).norm())


def test_no_record_moves_a_step_by_more_than_the_clipping_norm(load_tiny: Loader, records: tuple[Record, ...]) -> None:
    model = load_tiny()
    model.set_adapter(trained_b(model))
    with_it, without = (step_of(model, list(chosen), SILENT) for chosen in (records[:5], records[:4]))
    gap = {name: 2.0 * (with_it[name] - without[name]) for name in with_it}
    assert norm(gap) == pytest.approx(0.5, rel=1e-3)  # it is longer, and was scaled down to the norm
    wide = replace(SILENT, clip=1e6)
    gaps = [step_of(model, list(chosen), wide) for chosen in (records[:5], records[:4])]
    assert 2.0 * norm({name: gaps[0][name] - gaps[1][name] for name in gaps[0]}) > 0.6
    single = step_of(model, [records[4]], replace(wide, expected=1.0))
    assert norm({n: single[n] - 2.0 * (gaps[0][n] - gaps[1][n]) for n in single}) < 1e-4 * norm(single)


def test_noise_has_the_deviation_that_was_asked_for(load_tiny: Loader) -> None:
    model = load_tiny()
    model.set_adapter(trained_b(model))
    noise = torch.cat([each.flatten() for each in step_of(model, [], replace(MECHANISM, noise=3.0)).values()])
    expected = 3.0 * 0.5 / 2.0
    assert float(noise.std()) == pytest.approx(expected, rel=4 / np.sqrt(2 * len(noise)))
    assert abs(float(noise.mean())) < 4 * expected / np.sqrt(len(noise))


def test_columns_that_are_not_trained_get_no_noise(load_tiny: Loader, records: tuple[Record, ...]) -> None:
    model, start = load_tiny(), parent(load_tiny())
    config = replace(CONFIG, columns=1)
    result = train_privately(model, records, start, config, MECHANISM, seed=1)
    for name in start:
        if name.endswith("B"):
            assert result.adapter[name][:, 0].any()
            assert not result.adapter[name][:, 1:].any()
        else:
            assert np.array_equal(result.adapter[name], start[name])


def test_the_secret_decides_the_update_and_the_seed_does_not(load_tiny: Loader, records: tuple[Record, ...]) -> None:
    model = load_tiny()

    def run(secret: bytes, seed: int) -> AdapterState:
        mechanism = replace(MECHANISM, secret=secret)
        return train_privately(model, records, parent(model), CONFIG, mechanism, seed).adapter

    assert run(SECRET, 1) == run(SECRET, 2) != run(bytes(32), 1)


def test_every_record_is_drawn_by_itself(load_tiny: Loader, records: tuple[Record, ...]) -> None:
    """Poisson sampling: the number of records in a step is binomial, and may be zero."""
    model = load_tiny()
    config, sparse = replace(CONFIG, steps=1), replace(MECHANISM, rate=0.1)
    drawn = [
        train_privately(model, records, parent(model), config, replace(sparse, secret=bytes([i]) * 32), 1).examples
        for i in range(40)
    ]
    mean = 0.1 * len(records)
    assert abs(np.mean(drawn) - mean) < 4 * np.sqrt(mean / 40)
    assert min(drawn) < mean < max(drawn)
    assert train_privately(model, records, parent(model), config, replace(sparse, rate=1.0), 1).examples == len(records)


def test_no_record_is_noise_alone(load_tiny: Loader) -> None:
    model = load_tiny()
    result = train_privately(model, [], parent(model), CONFIG, MECHANISM, seed=1)
    assert result.examples == 0
    assert any(result.adapter[name].any() for name in result.adapter if name.endswith("B"))


def test_private_training_learns(load_tiny: Loader) -> None:
    model = load_tiny()
    taught = [question(f"What is {i}?", "The same answer.") for i in range(16)]
    config = replace(CONFIG, steps=12, batch_size=8)
    quiet = Mechanism(rate=0.5, clip=1.0, noise=0.3, expected=8.0, secret=SECRET)
    first = train_privately(model, taught, parent(model), replace(config, steps=1), quiet, 1).loss
    assert train_privately(model, taught, parent(model), config, quiet, 1).loss < first


@pytest.mark.parametrize("checkpointing", [True, False])
def test_gradient_checkpointing_changes_nothing(
    load_tiny: Loader, records: tuple[Record, ...], *, checkpointing: bool
) -> None:
    model = load_tiny()
    config = replace(CONFIG, gradient_checkpointing=checkpointing, steps=1)
    result = train_privately(model, records[:6], trained_b(model), config, SILENT, 1)
    plain = train_privately(
        model, records[:6], trained_b(model), replace(config, gradient_checkpointing=False), SILENT, 1
    )
    assert result.adapter == plain.adapter


def test_a_layer_that_mixes_rows_is_refused(load_tiny: Loader, records: tuple[Record, ...]) -> None:
    model = load_tiny("opt")
    with pytest.raises(ModelError, match="expected layers whose input is"):
        train_privately(model, records, parent(model), CONFIG, replace(MECHANISM, rate=1.0), 1)
