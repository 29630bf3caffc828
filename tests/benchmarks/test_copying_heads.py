"""The copying heads: what they attend to right after they are set, before any training refines them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel

import assets
from benchmarks.base_text import corpus
from benchmarks.copying_heads import MATCHING_LAYER, set_copying_heads
from benchmarks.train_base import build_model, encode, parse

BEGINNING = 1


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedModel:
    tokenizer = AutoTokenizer.from_pretrained(assets.base_model())
    unused = str(tmp_path_factory.mktemp("unused"))
    options = parse(["--data", unused, "--out", unused, "--work", unused, "--layers", "3"])
    model = build_model(options, tokenizer)
    records = corpus(1, {"medical": 20, "math": 20, "coding": 20, "copying": 20})
    set_copying_heads(model, [encode(record, tokenizer).ids for record in records], seed=1)
    model.set_attn_implementation("eager")
    return model


@pytest.fixture(scope="module")
def attentions(model: PreTrainedModel) -> tuple[Tensor, ...]:
    """Attention of every layer, (heads, T, T), over 24 different tokens and the same again."""
    tokens = torch.randperm(3000, generator=torch.Generator().manual_seed(2))[:24] + 400
    with torch.no_grad():
        out = model(input_ids=torch.cat([tokens, tokens])[None], output_attentions=True, use_cache=False)
    return tuple(layer[0] for layer in out.attentions)


def test_the_first_head_looks_at_the_token_before(attentions: tuple[Tensor, ...]) -> None:
    assert attentions[0][0].diagonal(-1)[BEGINNING:].min() > 0.99


def test_the_second_head_looks_at_the_token_itself(attentions: tuple[Tensor, ...]) -> None:
    assert attentions[0][1].diagonal()[BEGINNING:].min() > 0.99


@pytest.mark.parametrize("head", [0, 2])
def test_the_matching_heads_find_what_followed_an_earlier_occurrence(head: int, attentions: tuple[Tensor, ...]) -> None:
    looked_at = attentions[MATCHING_LAYER][head, 24:47].argmax(-1)
    right = (looked_at == torch.arange(1, 24)).float().mean()
    assert right > 0.3  # one in thirty by chance


def test_a_family_with_query_norms_is_refused(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(assets.base_model())
    unused = str(tmp_path)
    options = parse(["--data", unused, "--out", unused, "--work", unused, "--family", "qwen3"])
    with pytest.raises(ValueError, match="qwen3"):
        set_copying_heads(build_model(options, tokenizer), [], seed=1)
