"""The embedded base model: small, quantisable, found wherever the package lies, and with an honest card."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

import assets
from benchmarks.base_text import corpus
from benchmarks.ngram import CharacterNgram
from benchmarks.train_base import DOMAINS, answer_nats, encode, per_domain

FOLDER = assets.base_model()
NF4_BLOCK = 64
PAD = 4
USER = {"role": "user", "content": "What is 2 + 3?"}
SYSTEM = {"role": "system", "content": "Answer briefly."}
ASSISTANT = {"role": "assistant", "content": "5"}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def shapes() -> dict[str, tuple[str, tuple[int, ...]]]:
    with safe_open(FOLDER / "model.safetensors", framework="np") as file:
        domains = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  not a dict
        return {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in domains.items()}


def test_the_paths_lie_beside_the_package() -> None:
    root = Path(assets.__file__).parent
    assert root / "base" / "foedus-tiny" == assets.base_model()
    assert root / "samples" == assets.samples()


def test_the_weights_are_fp16_and_at_most_14_megabytes(shapes: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    assert {dtype for dtype, _ in shapes.values()} == {"F16"}
    assert (FOLDER / "model.safetensors").stat().st_size <= 14_000_000


def test_it_has_5_to_7_million_parameters(shapes: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    count = sum(shape[0] * (shape[1] if len(shape) == 2 else 1) for _, shape in shapes.values())
    assert 5_000_000 <= count <= 7_000_000


def test_the_sides_of_every_matrix_are_whole_nf4_blocks(shapes: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    matrices = {name: shape for name, (_, shape) in shapes.items() if len(shape) == 2}
    assert matrices
    assert [name for name, shape in matrices.items() if any(side % NF4_BLOCK for side in shape)] == []


def test_it_is_a_llama_with_tied_embeddings_and_1024_positions(
    shapes: dict[str, tuple[str, tuple[int, ...]]],
) -> None:
    config = json.loads((FOLDER / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["tie_word_embeddings"]
    assert "lm_head.weight" not in shapes
    assert (config["vocab_size"], config["max_position_embeddings"]) == (4096, 1024)


@given(st.text(max_size=80))
def test_every_text_comes_back_from_the_tokenizer_unchanged(text: str) -> None:
    tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    ids = tokenizer.encode(text.replace("<|", "< |"), add_special_tokens=False).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text.replace("<|", "< |")


def test_bytes_that_no_merge_knows_are_encoded_one_by_one(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer.encode("\U00013080", add_special_tokens=False)
    assert len(ids) == 4
    assert tokenizer.decode(ids) == "\U00013080"


def test_every_digit_is_a_token(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.tokenize("2019") == ["2", "0", "1", "9"]


def test_the_chat_template_frames_a_dialogue(tokenizer: PreTrainedTokenizerFast) -> None:
    text = tokenizer.apply_chat_template([USER, ASSISTANT], tokenize=False)
    assert text == "<|bos|><|user|>What is 2 + 3?<|assistant|>5<|end|>"


def test_a_generation_prompt_opens_the_answer(tokenizer: PreTrainedTokenizerFast) -> None:
    text = tokenizer.apply_chat_template([USER], tokenize=False, add_generation_prompt=True)
    assert text == "<|bos|><|user|>What is 2 + 3?<|assistant|>"


def test_a_system_message_is_folded_into_the_users_turn(tokenizer: PreTrainedTokenizerFast) -> None:
    text = tokenizer.apply_chat_template([SYSTEM, USER, ASSISTANT, USER], tokenize=False)
    assert text == ("<|bos|><|user|>Answer briefly.\nWhat is 2 + 3?<|assistant|>5<|end|><|user|>What is 2 + 3?")


def test_each_mark_is_one_token_and_the_answer_ends_with_eos(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer.apply_chat_template([USER, ASSISTANT], return_dict=False)
    assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert tokenizer.convert_ids_to_tokens([0, 1, 2, 3, 4]) == [
        "<|bos|>", "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>",
    ]  # fmt: skip


def test_it_predicts_new_generated_answers_better_than_a_character_6_gram_of_the_same_text(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    unseen = corpus(8, dict.fromkeys(DOMAINS, 12))
    bits = per_domain(unseen, answer_nats(model, [encode(record, tokenizer) for record in unseen], PAD))
    ngram = CharacterNgram(6).fit((r.prompt, r.output) for r in corpus(7, dict.fromkeys(DOMAINS, 300)))
    rival = per_domain(unseen, [ngram.nats(record.prompt, record.output) for record in unseen])
    assert all(bits[domain] < rival[domain] / 2 for domain in DOMAINS), (bits, rival)


def test_the_report_says_by_how_much_it_beats_the_6_grams_on_real_answers() -> None:
    bits = json.loads((FOLDER / "training.json").read_text())["bits_per_character"]
    for rival in (name for name in bits if name != "trained"):
        assert all(bits["trained"][domain] < bits[rival][domain] for domain in DOMAINS), rival


def test_the_card_has_the_numbers_of_the_training_report() -> None:
    report = json.loads((FOLDER / "training.json").read_text())
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    for name, row in report["bits_per_character"].items():
        assert f"| {name} | {' | '.join(f'{bits:.2f}' for bits in row.values())} |" in card
    assert f"{report['steps']:,} steps" in card
    assert f"{report['tokens']:,} tokens" in card
    measured = report["bits_per_character"]
    assert all(measured["trained"][d] < row[d] for name, row in measured.items() for d in row if name != "trained")
