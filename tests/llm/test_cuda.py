import pytest
import torch

from llm.evaluate import evaluate
from llm.records import Record
from llm.train import TrainConfig, train
from tests.llm.conftest import ARCHITECTURES, Loader
from tests.llm.test_train import parent

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"),
]


@pytest.mark.parametrize("quantisation", ["none", "nf4", "int8"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_training_on_cuda_lowers_the_loss_and_repeats_bit_for_bit(
    load_tiny: Loader, records: tuple[Record, ...], architecture: str, quantisation: str
) -> None:
    model = load_tiny(architecture, quantisation, device="cuda")
    start, config = parent(model), TrainConfig(8, 2, 96, learning_rate=1e-2)
    first, again = (train(model, records, start, config, seed=1).adapter for _ in range(2))
    assert first == again
    assert evaluate(model, first, records, 96).loss < evaluate(model, start, records, 96).loss
