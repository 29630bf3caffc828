"""The script that trains the embedded base: packing, schedule, held-out records and resumption."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import assets
from benchmarks.base_text import TextRecord, corpus
from benchmarks.train_base import (
    FAMILIES,
    Document,
    Options,
    Run,
    Text,
    answer_nats,
    build_model,
    collate,
    encode,
    is_held_out,
    pack,
    parse,
    per_domain,
    rate_at,
    token_nats,
)

PAD = 4
LENGTHS = st.lists(st.integers(1, 70), min_size=1, max_size=40)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(assets.base_model())


@pytest.fixture(scope="module")
def documents(tokenizer: PreTrainedTokenizerFast) -> list[Document]:
    return [encode(record, tokenizer) for record in corpus(1, {"math": 6, "copying": 6})]


@pytest.fixture
def options(tmp_path: Path) -> Options:
    small = ["--hidden", "64", "--layers", "1", "--steps", "4", "--length", "128", "--rows", "2"]
    return parse(["--data", str(tmp_path), "--out", str(tmp_path / "out"), "--work", str(tmp_path), *small])


def _run(options: Options, documents: list[Document], tokenizer: PreTrainedTokenizerFast) -> Run:
    torch.set_num_threads(1)
    text = Text(documents, [], options.length, options.seed)
    return Run(options, build_model(options, tokenizer), text, PAD)


@given(LENGTHS)
def test_packing_neither_loses_nor_doubles_a_token(lengths: list[int]) -> None:
    documents = [Document((i,) * n, (1.0,) * n, 0, "math") for i, n in enumerate(lengths)]
    rows = list(pack(documents, 50, open_rows=3))
    packed = sorted(token for row in rows for document in row for token in document.ids)
    assert packed == sorted(token for document in documents for token in document.ids)
    assert all(sum(len(document.ids) for document in row) <= 50 for row in rows)


def test_a_document_is_split_only_when_it_is_longer_than_a_row() -> None:
    rows = list(pack([Document(tuple(range(n)), (1.0,) * n, 5, "math") for n in (30, 50, 60)], 50))
    assert sorted(len(document.ids) for row in rows for document in row) == [10, 30, 50, 50]


def test_no_token_sees_another_document_or_what_follows_it() -> None:
    batch = collate([[Document((7, 8), (1.0, 1.0), 0, "math"), Document((9,), (1.0,), 0, "math")]], 4, PAD)
    assert batch.mask[0, 0].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert batch.positions.tolist() == [[0, 1, 0, 0]]


def test_the_first_token_of_a_document_and_padding_are_no_targets() -> None:
    batch = collate([[Document((7, 8), (1.0, 1.0), 0, "math"), Document((9,), (1.0,), 0, "math")]], 4, PAD)
    assert batch.weights.tolist() == [[0.0, 1.0, 0.0, 0.0]]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_packed_and_alone_a_document_costs_the_same(
    family: str, options: Options, documents: list[Document], tokenizer: PreTrainedTokenizerFast
) -> None:
    model = build_model(replace(options, family=family), tokenizer)
    packed = token_nats(model, collate([documents[:3]], 512, PAD))
    start, stop = len(documents[0].ids) + 1, len(documents[0].ids) + len(documents[1].ids)
    alone = token_nats(model, collate([[documents[1]]], len(documents[1].ids), PAD))
    torch.testing.assert_close(packed[0, start:stop], alone[0, 1:], atol=2e-2, rtol=0)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_linear_layer_is_made_of_whole_nf4_blocks(
    family: str, options: Options, tokenizer: PreTrainedTokenizerFast
) -> None:
    model = build_model(replace(options, family=family, hidden=128), tokenizer)
    assert all(side % 64 == 0 for p in model.parameters() if p.ndim == 2 for side in p.shape)


def test_a_record_is_encoded_as_the_chat_template_writes_it(tokenizer: PreTrainedTokenizerFast) -> None:
    record = TextRecord("math", "Add.", "2 and 3", "2+3 = 5")
    turns = [{"role": "user", "content": "Add.\n2 and 3"}, {"role": "assistant", "content": "2+3 = 5"}]
    document = encode(record, tokenizer)
    assert list(document.ids) == tokenizer.apply_chat_template(turns, return_dict=False)
    assert tokenizer.decode(document.ids[document.answer_from :]) == "2+3 = 5<|end|>"
    assert len(document.ids) == len(document.weights)


def test_records_about_one_table_are_on_the_same_side() -> None:
    records = corpus(1, {"financial": 300})
    assert all(is_held_out(r) == is_held_out(replace(r, instruction="Another question?")) for r in records)
    assert 0 < sum(map(is_held_out, records)) < 30


@pytest.mark.parametrize(("done", "step", "part"), [(0.0, 0, 0.025), (0.2, 500, 1.0), (0.7, 500, 0.5), (1.0, 500, 0.0)])
def test_the_rate_is_warmed_up_held_and_falls_to_zero(done: float, step: int, part: float) -> None:
    assert rate_at(done, step) == pytest.approx(part)


def test_bits_per_character_weigh_records_by_their_length() -> None:
    records = [TextRecord("math", "", "", "ab"), TextRecord("math", "", "", "abcdef")]
    assert per_domain(records, [0.0, 8 * 0.6931471805599453]) == pytest.approx({"math": 1.0})


def test_a_long_prompt_is_cut_and_never_the_answer(
    options: Options, tokenizer: PreTrainedTokenizerFast, documents: list[Document]
) -> None:
    model = build_model(options, tokenizer)
    answer = documents[0].ids[documents[0].answer_from :]
    long = Document((5,) * 1500 + answer, (1.0,) * (1500 + len(answer)), 1500, "math")
    (nats,) = answer_nats(model, [long], PAD)
    assert nats == pytest.approx(len(answer) * 8.3, rel=0.1)


def test_a_resumed_run_ends_where_an_undisturbed_one_does(
    options: Options, documents: list[Document], tokenizer: PreTrainedTokenizerFast
) -> None:
    whole = _run(options, documents, tokenizer)
    losses = list(whole.steps())
    first = _run(options, documents, tokenizer)
    steps = first.steps()
    begun = [next(steps), next(steps)]
    first.save()
    second = _run(options, documents, tokenizer)
    second.resume()
    assert [*begun, *second.steps()] == losses
    assert losses[-1] < losses[0]


def test_setting_the_copying_heads_is_remembered_and_begins_the_optimisers_afresh(
    options: Options, documents: list[Document], tokenizer: PreTrainedTokenizerFast
) -> None:
    run = _run(replace(options, hidden=256, layers=3), documents, tokenizer)
    next(run.steps())
    run.set_copying_heads()
    run.save()
    again = _run(run.options, documents, tokenizer)
    again.resume()
    assert again.progress.copying_heads
    assert not any(optimiser.state for optimiser in again.optimisers)
    torch.testing.assert_close(again.model.state_dict(), run.model.state_dict(), rtol=0, atol=0)
