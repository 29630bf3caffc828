"""A tokenizer and the network that it comes with: embeddings for all tokens, and ends of answers."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import AddedToken

from core.errors import ModelError
from llm.evaluate import evaluate, greedy_answers
from llm.model import Model, ModelSpec, load, unload
from llm.records import Record
from llm.train import TrainConfig, train
from tests.llm.conftest import CHAT, byte_tokenizer, question
from tests.llm.test_model import random_adapter

RECORDS = (question("What?", "This."), question("Who?", "The other."))


@pytest.fixture
def changed(base_folder: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy of the tiny Llama, to be changed."""
    return shutil.copytree(base_folder("llama"), tmp_path / "base")


def loaded(folder: Path) -> Model:
    return load(ModelSpec(str(folder), "none", 4, 8.0, device="cpu"))


def retokenised(folder: Path, template: str, *added: str) -> Path:
    """The folder with a tokenizer of more tokens and another template; its embeddings stay."""
    tokenizer = byte_tokenizer(template)
    tokenizer.add_tokens([AddedToken(token, special=True) for token in added])
    tokenizer.save_pretrained(folder)
    return folder


def test_a_base_without_an_end_token_trains_and_answers(changed: Path, records: tuple[Record, ...]) -> None:
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        settings = json.loads((changed / name).read_text())
        gone = dict.fromkeys(("eos_token_id", "pad_token_id", "eos_token", "pad_token") & settings.keys())
        (changed / name).write_text(json.dumps(settings | gone))
    retokenised(changed, "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    settings = json.loads((changed / "tokenizer_config.json").read_text())
    (changed / "tokenizer_config.json").write_text(json.dumps(settings | {"eos_token": None, "pad_token": None}))
    model = loaded(changed)
    assert model.tokenizer.eos_token is None
    assert not model.end_tokens
    result = train(model, records, random_adapter(model, 4), TrainConfig(steps=1, max_length=64), seed=1)
    assert evaluate(model, result.adapter, records, 64).loss > 0
    assert [len(answer) for answer in greedy_answers(model, result.adapter, ["How many?", "And who?"], 5)] == [5, 5]


def test_a_template_with_a_token_that_has_no_embedding_is_refused(changed: Path) -> None:
    template = CHAT.replace("<{{ m.role }}>", "<|turn|>{{ m.role }}")
    with pytest.raises(
        ModelError, match="expected an embedding for each token, got 260 for a tokenizer with token 260"
    ):
        loaded(retokenised(changed, template, "<|turn|>"))


def test_a_token_without_embedding_that_the_template_never_writes_is_text(changed: Path) -> None:
    model = loaded(retokenised(changed, CHAT, "<image>"))
    assert max(model.tokenizer("an <image> of it")["input_ids"]) < 260
    assert model.tokenizer.decode(model.tokenizer("an <image> of it")["input_ids"]) == "an <image> of it"
    assert evaluate(model, None, [question("What is in <image>?", "It.")], 64).loss > 0


def test_the_token_with_which_the_template_closes_a_turn_ends_an_answer(changed: Path) -> None:
    """As in bases that were never trained to chat: their end token is another one."""
    assert loaded(changed).end_tokens == {258}
    retokenised(changed, CHAT.replace("</s>", "<unk>"))
    unload()
    assert loaded(changed).end_tokens == {258, 259}
