import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.errors import DataError
from llm.batches import IGNORED, Example, check_turns, collate, encode, encode_prompt, pack
from llm.records import Message, Record
from tests.llm.conftest import CHAT, byte_tokenizer, question

# --- tokens ----------------------------------------------------------------------------------------------------


def text(tokens: tuple[int, ...], template: str | None = None) -> str:
    return byte_tokenizer(template).decode(tokens)


def test_the_chat_template_of_the_tokenizer_is_used() -> None:
    example = encode(byte_tokenizer(CHAT), question("Who?", "I."), 100)
    assert text(example.tokens[: example.prompt_length]) == "<user>Who?\n<assistant>"
    assert text(example.tokens[example.prompt_length :]) == "I.</s>"


def test_without_a_chat_template_instruction_and_response_are_marked() -> None:
    example = encode(byte_tokenizer(), question("Who?", "I."), 100)
    assert text(example.tokens[: example.prompt_length]) == "<s>### Instruction:\nWho?\n\n### Response:\n"
    assert text(example.tokens[example.prompt_length :]) == "I.</s>"


def test_plain_text_is_all_answer() -> None:
    example = encode(byte_tokenizer(CHAT), Record((), "Once."), 100)
    assert text(example.tokens) == "<s>Once.</s>"
    assert example.prompt_length == 1


@pytest.mark.parametrize("template", [CHAT, None])
def test_generation_starts_from_the_tokens_that_training_put_before_the_answer(template: str | None) -> None:
    tokenizer = byte_tokenizer(template)
    example = encode(tokenizer, question("Who?", "I."), 100)
    assert encode_prompt(tokenizer, "Who?") == example.tokens[: example.prompt_length]


def test_a_template_that_writes_answers_differently_still_gets_answer_and_end() -> None:
    tokenizer = byte_tokenizer(CHAT.replace("<assistant>", "<assistant><think>"))
    example = encode(tokenizer, question("Who?", "I."), 100)
    assert text(example.tokens[example.prompt_length :]) == "I.</s>"


def test_turns_that_the_template_refuses_are_a_data_error() -> None:
    refuses = "{{ raise_exception('no system turns') }}"
    with pytest.raises(DataError, match="no system turns"):
        encode(byte_tokenizer(refuses), question("Who?", "I."), 100)


def test_half_a_character_is_a_data_error() -> None:
    with pytest.raises(DataError, match=r"expected Unicode text, got \\udce9 alone"):
        encode_prompt(byte_tokenizer(CHAT), "caf\udce9")


def test_an_order_of_turns_that_the_template_refuses_is_named_before_training() -> None:
    alternating = (
        "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}{{ m.content }}{% endfor %}"
    )
    twice = Record((Message("user", "Hello."), Message("user", "Who?")), "I.", where="turns.jsonl:3")
    check_turns(byte_tokenizer(alternating), [question("Who?", "I."), Record((), "plain")])
    with pytest.raises(DataError, match=r"turns\.jsonl:3: .*refuses the turns user, user.*: roles must alternate"):
        check_turns(byte_tokenizer(alternating), [question("Who?", "You."), twice])


@given(st.integers(1, 200), st.integers(1, 200), st.integers(2, 120))
def test_a_prompt_keeps_three_quarters_of_the_row_and_the_answer_what_is_left(
    prompt: int, answer: int, length: int
) -> None:
    tokenizer = byte_tokenizer("{{ messages[0].content }}")
    example = encode(tokenizer, question("p" * prompt, "a" * answer), length)
    end = 1
    assert example.prompt_length == min(prompt, 3 * length // 4)
    assert len(example) == min(length, example.prompt_length + answer + end)


@given(st.integers(1, 200), st.integers(2, 120), st.integers(1, 200), st.integers(1, 200))
def test_the_cut_of_a_prompt_says_nothing_of_its_answer(prompt: int, length: int, one: int, other: int) -> None:
    tokenizer = byte_tokenizer("{{ messages[0].content }}")
    examples = [encode(tokenizer, question("p" * prompt, "x" * answer), length) for answer in (one, other)]
    first, second = (example.tokens[: example.prompt_length] for example in examples)
    assert first == second


def test_a_prompt_that_is_too_long_loses_its_middle() -> None:
    tokenizer = byte_tokenizer("{{ messages[0].content }}")
    example = encode(tokenizer, question("abcdefghij", "01"), 6)
    assert text(example.tokens) == "abij01"


# --- packing ---------------------------------------------------------------------------------------------------

lengths = st.lists(st.integers(1, 16), min_size=1, max_size=60)


@given(lengths)
def test_packing_keeps_every_example_once_and_no_row_is_too_long(sizes: list[int]) -> None:
    rows = pack([Example((0,) * size, 0) for size in sizes], 16)
    assert sorted(index for row in rows for index in row) == list(range(len(sizes)))
    assert all(sum(sizes[index] for index in row) <= 16 for row in rows)


@given(lengths)
def test_at_most_one_row_is_half_empty(sizes: list[int]) -> None:
    rows = pack([Example((0,) * size, 0) for size in sizes], 16)
    assert sum(sum(sizes[index] for index in row) < 8 for row in rows) <= 1


def test_a_batch_restarts_positions_and_predicts_within_each_example() -> None:
    examples = [Example((10, 11, 12), 1), Example((20, 21), 1), Example((30, 31, 32, 33), 3)]
    batch = collate(examples, [(0, 1), (2,)])
    assert batch.tokens.tolist() == [[10, 11, 12, 20, 21], [30, 31, 32, 33, 0]]
    assert batch.positions.tolist() == [[0, 1, 2, 0, 1], [0, 1, 2, 3, 0]]
    assert batch.targets.tolist() == [[11, 12, IGNORED, 21, IGNORED], [IGNORED, IGNORED, 33, IGNORED, IGNORED]]
    assert batch.owners.tolist() == [[0, 0, 0, 1, 1], [2, 2, 2, 2, -1]]
    assert len(batch) == 4


def test_the_first_token_of_a_row_is_never_a_target() -> None:
    batch = collate([Example((7, 8), 0)], [(0,)])
    assert torch.equal(batch.targets, torch.tensor([[8, IGNORED]]))
