"""Every architecture of the table in docs/start/your-model.md: a step of training, an export, and plain PEFT on it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
from transformers.models.bert import BertConfig, BertLMHeadModel
from transformers.models.t5 import T5Config, T5ForConditionalGeneration

from core.adapter import AdapterState
from core.errors import ModelError
from llm.evaluate import evaluate
from llm.export import export
from llm.model import ModelSpec, load
from llm.records import Record
from llm.train import TrainConfig, train
from tests.llm.conftest import CHAT, byte_tokenizer
from tests.llm.test_model import random_adapter

TABLE = Path(__file__).parents[2] / "docs" / "start" / "your-model.md"
ACCEPTED = {
    "llama": "Llama",
    "qwen2": "Qwen 2",
    "qwen3": "Qwen 3",
    "gemma3": "Gemma 3",
    "mistral": "Mistral",
    "smollm3": "SmolLM 3",
    "phi": "Phi",
    "gpt2": "GPT-2",
    "mixtral": "Mixtral",
    "opt": "OPT",
}
TOKENS = torch.arange(24).reshape(2, 12)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # PEFT's own
@pytest.mark.filterwarnings("ignore:.*_pattern keys did not match.*:RuntimeWarning")  # of experts, which are frozen
@pytest.mark.parametrize("blocks", ["", "1-1"])
@pytest.mark.parametrize("architecture", ACCEPTED)
def test_a_step_is_trained_and_plain_peft_loads_the_export(
    base_folder: Callable[[str], Path], tmp_path: Path, records: tuple[Record, ...], architecture: str, blocks: str
) -> None:
    model = load(ModelSpec(str(base_folder(architecture)), "none", 4, 8.0, blocks=blocks, device="cpu"))
    start = random_adapter(model, rank=4)
    trained = train(model, records, start, TrainConfig(steps=1, max_length=64, train_a=True), seed=1).adapter
    assert _moved(start, trained) == set(start)
    assert evaluate(model, trained, records[:2], 64).loss > 0
    export(model, {"": trained}, tmp_path / "adapter", lambda _name, _folder: None)
    base = AutoModelForCausalLM.from_pretrained(model.folder, dtype=torch.float32, attn_implementation="sdpa").eval()
    loaded = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    with torch.no_grad():
        served, plain = model.module(TOKENS).logits, loaded(TOKENS).logits
    torch.testing.assert_close(plain, served, rtol=0.0, atol=0.0)


def _moved(before: AdapterState, after: AdapterState) -> set[str]:
    return {name for name in after if (before[name] != after[name]).any()}


def test_the_table_in_the_documents_names_what_is_tested() -> None:
    rows = [line.split("|")[1].strip() for line in TABLE.read_text(encoding="utf-8").splitlines() if "| yes |" in line]
    assert rows == list(ACCEPTED.values())


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (
            lambda: BertLMHeadModel(
                BertConfig(
                    vocab_size=260, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=80
                )
            ),
            "expected a decoder, got BertLMHeadModel, whose logits depend on later tokens",
        ),
        (
            lambda: T5ForConditionalGeneration(
                T5Config(vocab_size=260, d_model=48, d_ff=80, d_kv=12, num_layers=2, num_heads=4)
            ),
            "cannot be loaded as none: Unrecognized configuration class",
        ),
    ],
)
def test_an_architecture_that_cannot_be_trained_is_refused_in_one_line(
    tmp_path: Path, make: Callable[[], torch.nn.Module], why: str
) -> None:
    make().save_pretrained(tmp_path)
    byte_tokenizer(CHAT).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=why) as caught:
        load(ModelSpec(str(tmp_path), "none"))
    assert "\n" not in str(caught.value)
