"""From records to packed batches of tokens.

Decisions:

- Prompt and answer are tokenised apart, so the boundary is exact and generation sees the tokens of training.
- Several examples share a row, each with positions from zero; the model then lets no token attend across examples.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from core.errors import DataError
from llm.records import Message, Record, check_unicode
from llm.templates import chat

IGNORED = -100
"""Target of a position whose next token is not part of an answer."""


@dataclass(frozen=True)
class Example:
    """Tokens of one record; those from `prompt_length` on are the answer, its end token included."""

    tokens: tuple[int, ...]
    prompt_length: int

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class Batch:
    """Packed rows, each field an int64 tensor of shape (rows, longest row)."""

    tokens: torch.Tensor
    positions: torch.Tensor
    """Restarts at zero where an example begins, and where padding begins."""
    targets: torch.Tensor
    """The next token where that is an answer's, else IGNORED."""
    owners: torch.Tensor
    """Index of the example a position belongs to, -1 for padding."""
    entering: torch.Tensor | None = None
    """Hidden states (rows, longest row, width) that enter the first adapted block, where they are known already."""

    def to(self, device: torch.device) -> "Batch":
        """Return the same batch on `device`."""
        entering = None if self.entering is None else self.entering.to(device)
        tokens, positions, targets, owners = (
            tensor.to(device) for tensor in (self.tokens, self.positions, self.targets, self.owners)
        )
        return Batch(tokens, positions, targets, owners, entering)

    def __len__(self) -> int:
        return int((self.targets != IGNORED).sum())


# --- tokens --------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def encode(tokenizer: Any, record: Record, max_length: int) -> Example:
    """Tokenise a record, cut to `max_length` tokens; remembered, for every round comes back to the same records.

    A prompt of more than three quarters of a row loses its middle: its head holds the question, its tail the marker
    that the answer follows. The answer has what the prompt leaves.
    """
    prompt, answer = (_tokens(tokenizer, text) for text in _texts(tokenizer, record))
    # By the prompt alone: a cut that made room for the answer would tell the model how long an answer to give.
    room = 3 * max_length // 4
    if len(prompt) > room:
        head = room // 2
        prompt = prompt[:head] + prompt[len(prompt) - (room - head) :]
    return Example((*prompt, *answer[: max_length - len(prompt)]), len(prompt))


def encode_prompt(tokenizer: Any, prompt: str) -> tuple[int, ...]:
    """Return the tokens after which the model answers `prompt`, the same as `encode` puts before an answer."""
    return encode_turns(tokenizer, (Message("user", prompt),))


def encode_turns(tokenizer: Any, turns: tuple[Message, ...]) -> tuple[int, ...]:
    """The same of a conversation; raises DataError for turns that the chat template refuses, or no Unicode text."""
    return tuple(_tokens(tokenizer, _prompt_text(tokenizer, Record(turns, ""))))


def check_turns(tokenizer: Any, records: Iterable[Record], tried: set[tuple[str, ...]] | None = None) -> None:
    """Raise DataError for a conversation whose turns the chat template refuses, before anybody trains on it.

    A template looks at the roles and their order; each order that occurs is tried once. Those in `tried` are not tried
    again, and what is tried is added to it.
    """
    tried = set() if tried is None else tried
    for record in records:
        if record.roles in tried:
            continue
        tried.add(record.roles)
        try:
            _texts(tokenizer, record)
        except DataError as error:
            raise DataError(f"{record.where}: {error}") from error


def pieces(tokenizer: Any, tokens: Sequence[int]) -> tuple[str, ...]:
    """The text that each token adds to those before it; joined, the text of all.

    Of a character that several tokens spell, the last has all and the others nothing.
    """
    growing = GrowingText(tokenizer)
    added = [growing.add(token) for token in tokens[:-1]]
    return (*added, *(growing.add(token, last=True) for token in tokens[-1:]))


class GrowingText:
    """The text of tokens that come one by one."""

    def __init__(self, tokenizer: Any) -> None:
        """No token yet."""
        self._tokenizer, self._tokens, self._text = tokenizer, list[int](), ""

    def add(self, token: int, *, last: bool = False) -> str:
        """The text that a token adds; of a character that several tokens spell, the last has all."""
        self._tokens.append(token)
        text = str(self._tokenizer.decode(self._tokens, clean_up_tokenization_spaces=False))
        # U+FFFD stands for bytes that are no character yet: the next token may complete it.
        if text.endswith("\ufffd") and not last:
            return ""
        added, self._text = text[len(self._text) :], text
        return added

    def rest(self) -> str:
        """What is left of bytes that no token has completed."""
        return str(self._tokenizer.decode(self._tokens, clean_up_tokenization_spaces=False))[len(self._text) :]


def _tokens(tokenizer: Any, text: str) -> list[int]:
    check_unicode("prompt or answer", text)
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _texts(tokenizer: Any, record: Record) -> tuple[str, str]:
    """Prompt and answer as the tokenizer's template writes them, the answer with its end token."""
    end = tokenizer.eos_token or ""
    if not record.prompt:
        return tokenizer.bos_token or "", record.answer + end
    prompt = _prompt_text(tokenizer, record)
    if not tokenizer.chat_template:
        return prompt, record.answer + end
    full = chat(tokenizer, (*record.prompt, Message("assistant", record.answer)), answered=True)
    turn = full.removeprefix(prompt).rstrip("\n")
    if full.startswith(prompt) and record.answer.strip() in turn:
        return prompt, turn
    # Some templates write an answered turn differently from an open one: then the answer is closed by hand.
    return prompt, record.answer + end


def _prompt_text(tokenizer: Any, record: Record) -> str:
    if tokenizer.chat_template:
        return chat(tokenizer, record.prompt, answered=False)
    titles = {"system": "System", "user": "Instruction", "assistant": "Response"}
    turns = "".join(f"### {titles[turn.role]}:\n{turn.content}\n\n" for turn in record.prompt)
    return f"{tokenizer.bos_token or ''}{turns}### Response:\n"


# --- rows ----------------------------------------------------------------------------------------------------------


def pack(examples: Sequence[Example], max_length: int) -> list[tuple[int, ...]]:
    """Put examples into rows of at most `max_length` tokens, best fit in the order given.

    Returns the indices of each row's examples, in the order in which rows were opened.
    """
    rows: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (tokens left, row), sorted: the first that is large enough fits best
    for index, example in enumerate(examples):
        slot = bisect_left(free, (len(example), -1))
        left, row = free.pop(slot) if slot < len(free) else (max_length, len(rows))
        if row == len(rows):
            rows.append([])
        rows[row].append(index)
        insort(free, (left - len(example), row))
    return [tuple(row) for row in rows]


def collate(examples: Sequence[Example], rows: Sequence[Sequence[int]]) -> Batch:
    """Lay out `rows` (indices into `examples`) as tensors padded to the longest row."""
    shape = len(rows), max(sum(len(examples[index]) for index in row) for row in rows)
    tokens, positions = torch.zeros(shape, dtype=torch.int64), torch.arange(shape[1]).repeat(shape[0], 1)
    targets, owners = torch.full(shape, IGNORED), torch.full(shape, -1)
    for number, row in enumerate(rows):
        start = 0
        for index in row:
            example = examples[index]
            stop, answer = start + len(example), start + max(example.prompt_length, 1)
            tokens[number, start:stop] = torch.tensor(example.tokens)
            # A position predicts the next one: the answer's first token is the target of the prompt's last.
            targets[number, answer - 1 : stop - 1] = tokens[number, answer:stop]
            owners[number, start:stop] = index
            # From here on, padding included, until another example begins.
            positions[number, stop:] = torch.arange(shape[1] - stop)
            start = stop
    return Batch(tokens, positions, targets, owners)
